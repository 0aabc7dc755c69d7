import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encodeMessage, type FlowMod } from '../../src/wire/openflow/message.ts';
import { anyFlow, ofctlText } from '../support/openflow-flows.ts';

const dir = mkdtempSync(join(tmpdir(), 'of-ofctl-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

beforeAll(() => {
  // Without the oracle there is no test: better to fail than to pass.
  execFileSync('ovs-ofctl', ['--version']);
});

/** Flow mods as ovs-ofctl prints them, without transaction ids. */
function flowMods(text: string): readonly string[] {
  return text
    .split('\n')
    .filter((line) => line.includes('OFPT_FLOW_MOD'))
    .map((line) => line.replace(/ \(xid=0x[0-9a-f]+\)/, ''));
}

function ofctl(...args: readonly string[]): string {
  return execFileSync('ovs-ofctl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 2 ** 28 });
}

const COMMANDS = { add: 'ADD', modify: 'MOD', modify_strict: 'MOD_STRICT', delete: 'DEL', delete_strict: 'DEL_STRICT' };

describe('flow mods', () => {
  it('are to ovs-ofctl what the same flows in its own language are', () => {
    fc.assert(
      fc.property(fc.array(anyFlow, { minLength: 60, maxLength: 120 }), (flows) => {
        const bytes = join(dir, 'messages');
        const text = join(dir, 'flows');
        writeFileSync(
          bytes,
          Buffer.concat(flows.map((flow, i) => encodeMessage(i, { type: 'flow_mod', command: 'add', ...flow }))),
        );
        writeFileSync(text, flows.map((flow) => `${ofctlText(flow)}\n`).join(''));
        const ours = flowMods(ofctl('ofp-parse', bytes));
        expect(ours).toHaveLength(flows.length);
        expect(ours).toEqual(flowMods(ofctl('-O', 'OpenFlow15', 'parse-flows', text)));
      }),
      { numRuns: 15 },
    );
  });

  it('say which command, which ports and which cookies', () => {
    const flow = { table: 4, priority: 5, cookie: 6n, match: { in_port: 7 }, actions: [] };
    for (const [command, word] of Object.entries(COMMANDS)) {
      const bytes = encodeMessage(1, { type: 'flow_mod', command: command as FlowMod['command'], ...flow });
      const printed = ofctl('ofp-print', Buffer.from(bytes).toString('hex'));
      expect(printed).toMatch(new RegExp(`: ${word} table:4 (priority=5,)?in_port=7 `));
    }
    const picky = encodeMessage(1, {
      type: 'flow_mod',
      command: 'delete',
      ...flow,
      cookieMask: 0xffn,
      outPort: 9,
    });
    expect(ofctl('ofp-print', Buffer.from(picky).toString('hex'))).toMatch(/cookie:0x6\/0xff out_port:9/);
  });
});

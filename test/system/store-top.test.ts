import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createChdbStore } from '../../src/collector/store/chdb-store.ts';
import type { Store } from '../../src/collector/store/store.ts';
import { topTalkers, totals } from '../../src/collector/store/top-talkers.ts';
import type { FlowRow } from '../../src/model/flow.ts';
import type { Talker, TalkersRequest } from '../../src/model/top-talkers.ts';
import { flowFrame } from '../support/flow-rows.ts';
import { randomFlows } from '../support/random-flows.ts';

/** 2026-01-01 12:00 UTC in microseconds. */
const NOON = 1_767_268_800_000_000;
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const AT = NOON / 1000;

let folder: string;
let store: Store;
const rows = randomFlows({ start: NOON, span: 3_600_000_000, connections: 2_000, vms: 12, seed: 7 });

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-top-'));
  store = createChdbStore({ directory: folder, retention: {}, queryTimeoutSeconds: 20 });
  await store.start();
  for (let i = 0; i < rows.length; i += 1_000)
    await store.insertNative('flows', [flowFrame(rows.slice(i, i + 1_000))], { token: `${i}`, compression: 'zstd' });
});
afterAll(async () => {
  await store.stop();
  rmSync(folder, { recursive: true, force: true });
});

const PROTOCOLS: Readonly<Record<number, string>> = { 6: 'tcp', 17: 'udp' };

function lineOf(row: FlowRow, by: TalkersRequest['by']): string {
  if (by === 'port') return `${PROTOCOLS[row.protocol]}/${row.side === 'server' ? row.local_port : row.peer_port}`;
  if (by === 'peer') return `${row.vm} ${row.peer_vm}`;
  return by === 'app' ? row.application : row[by];
}

/** A connection's side: who opened it comes first. */
const sideOf = ({ side, endpoint }: FlowRow): string => `${side === 'unknown' ? endpoint : side}`;

/**
 * By hand, from the list of rows: a line adds up what the rows of one side of each connection moved, the first by `sideOf` of those that belong to it, and what
 * either side dropped.
 */
function expected({ by, since, until = Number.POSITIVE_INFINITY, vm, app, project, verdict }: TalkersRequest) {
  const belongs = (row: FlowRow): boolean =>
    (vm === undefined || row.vm === vm) &&
    (app === undefined || row.application === app) &&
    (project === undefined || row.project === project) &&
    (verdict === undefined || row.verdict === verdict);
  const isOneSided = by === 'rule' || verdict === 'deny';
  // Pairs and services are the same in both directions, though nobody may know which port is the service's.
  const keyOf = (row: FlowRow): string => (by === 'peer' || by === 'port' ? '' : lineOf(row, by));
  const sides = new Map<string, string>();
  for (const row of rows.filter(belongs)) {
    const key = `${keyOf(row)} ${row.connection}`;
    const known = sides.get(key);
    if (known === undefined || sideOf(row) < known) sides.set(key, sideOf(row));
  }
  const lines = new Map<string, number[]>();
  const connections = new Map<string, Set<number | bigint>>();
  for (const row of rows) {
    const ms = row.time / 1000;
    if (!belongs(row) || lineOf(row, by) === '' || ms < since || ms >= until) continue;
    const isOther = !isOneSided && sides.get(`${keyOf(row)} ${row.connection}`) !== sideOf(row);
    const line = isOther && by === 'peer' ? `${row.peer_vm} ${row.vm}` : lineOf(row, by);
    const sums = lines.get(line) ?? [0, 0, 0, 0, 0];
    const [tx, rx] = isOther ? [0, 0] : [Number(row.tx_octets), Number(row.rx_octets)];
    const packets = isOther ? 0 : Number(row.tx_packets) + Number(row.rx_packets);
    lines.set(
      line,
      [tx + rx, tx, rx, packets, Number(row.drop_packets)].map((value, i) => value + (sums[i] as number)),
    );
    connections.set(line, (connections.get(line) ?? new Set()).add(row.connection));
  }
  return { lines, connections: new Map([...connections].map(([line, ids]) => [line, ids.size])) };
}

async function found(request: TalkersRequest): Promise<Talker[]> {
  const { sql, params } = topTalkers({ limit: 1_000, ...request });
  return store.query<Talker>(sql, params);
}

const linesOf = (talkers: readonly Talker[]) =>
  new Map(
    talkers.map(({ name, peer, octets, tx_octets, rx_octets, packets, dropped_packets }) => [
      peer === undefined ? name : `${name} ${peer}`,
      [octets, tx_octets, rx_octets, packets, dropped_packets],
    ]),
  );

const SOME = { since: AT + 10 * MINUTE_MS, until: AT + 40 * MINUTE_MS };
const LONG = { since: AT - 60 * HOUR_MS, until: AT + HOUR_MS };
const REQUESTS: readonly Omit<TalkersRequest, 'since'>[] = [
  { by: 'vm' },
  { by: 'vm', app: 'a-1' },
  { by: 'vm', verdict: 'allow' },
  { by: 'app' },
  { by: 'app', project: 'p-1' },
  { by: 'project' },
  { by: 'project', verdict: 'deny' },
  { by: 'peer' },
  { by: 'peer', vm: 'vm-3' },
  { by: 'peer', app: 'a-2', project: 'p-0' },
  { by: 'port' },
  { by: 'port', vm: 'vm-3' },
  { by: 'port', verdict: 'deny' },
  { by: 'rule' },
  { by: 'rule', project: 'p-2' },
  { by: 'network' },
  { by: 'network', app: 'a-1' },
];

describe('top talkers', () => {
  it.each(REQUESTS)('%j: rows, minutes and hours add up to what a count by hand says', async (request) => {
    for (const [span, table] of [
      [{ ...SOME, exact: true }, 'flows'],
      [SOME, request.by === 'network' ? 'flows' : 'flows_1m'],
      [LONG, request.by === 'network' ? 'flows' : 'flows_1h'],
    ] as const) {
      const asked = { ...request, ...span };
      expect(topTalkers(asked).sql).toContain(`FROM sonde.\`${table}\``);
      const talkers = await found(asked);
      const { lines, connections } = expected(asked);
      expect(lines.size).toBeGreaterThan(0);
      expect(linesOf(talkers), table).toEqual(lines);
      const octets = talkers.map((talker) => Number(talker.octets));
      expect(octets).toEqual(octets.toSorted((a, b) => b - a));
      for (const { name, peer, connections: counted } of talkers) {
        const exact = connections.get(peer === undefined ? name : `${name} ${peer}`) as number;
        // The sums estimate.
        const most = table === 'flows' ? 0 : exact * 0.08;
        expect(Math.abs(Number(counted) - exact)).toBeLessThanOrEqual(most);
      }
    }
  });

  it('of less than ten minutes come from the rows, to the millisecond', async () => {
    const span = { by: 'vm', since: AT + 300_500, until: AT + 777_777 } as const;
    expect(topTalkers(span).sql).toContain('FROM sonde.`flows`');
    expect(linesOf(await found(span))).toEqual(expected(span).lines);
  });

  it('by port make up the total', async () => {
    const { sql, params } = totals(SOME);
    const [sum] = await store.query<{ octets: number }>(sql, params);
    const ports = await found({ by: 'port', ...SOME });
    expect(sum?.octets).toBe(ports.reduce((total, { octets }) => total + Number(octets), 0));
  });
});

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { LabHost } from '../../src/lab/lab.ts';
import { ovsEnvironment } from '../../src/lab/openvswitch.ts';
import { REGISTERS } from '../../src/model/datapath.ts';
import type { TracedPacket } from '../../src/trace/observe.ts';
import type { TraceSwitch } from '../../src/trace/trace-point.ts';

const run = promisify(execFile);
const BRIDGE = 'br-int';
const OPENFLOW = ['-O', 'OpenFlow15'];

/**
 * A trace's switch by Open vSwitch's own tools: `ovs-ofctl packet-out` sends, `ovs-ofctl monitor` reads packet-ins as text. It shares nothing
 * with our OpenFlow code, so what both see is so.
 */
export async function createOfctlSwitch(host: LabHost): Promise<TraceSwitch & { stop(): void }> {
  const env = { ...process.env, ...ovsEnvironment(host.runDir) };
  const handlers = new Set<(packet: TracedPacket) => void>();
  const monitor: ChildProcess = spawn(
    'ovs-ofctl',
    [...OPENFLOW, '-m', 'monitor', BRIDGE, '65534', '-P', 'nxt_packet_in2'],
    { env, stdio: ['ignore', 'ignore', 'pipe'] },
  );
  // A message begins with its name and ends with the last octet of its packet; nothing else marks the end.
  let block: string[] = [];
  createInterface({ input: monitor.stderr! }).on('line', (line) => {
    if (line.startsWith('NXT_PACKET_IN2')) block = [];
    block.push(line);
    const packet = parsePacketIn(block);
    if (packet === undefined) return;
    block = [];
    for (const handler of handlers) handler(packet);
  });
  const control = async (): Promise<boolean> =>
    (await run('ovs-appctl', ['-t', `${host.runDir}/ovs-ofctl.${monitor.pid}.ctl`, 'version'], { env }).catch(
      () => undefined,
    )) !== undefined;
  while (!(await control())) await delay(20);
  // The monitor has its control socket before it has told the switch what it wants; a barrier of its own follows that.
  await run('ovs-appctl', ['-t', `${host.runDir}/ovs-ofctl.${monitor.pid}.ctl`, 'ofctl/barrier'], { env });

  return {
    connected: () => monitor.exitCode === null,
    async inject({ inPort, trace, traceFlags, frame }) {
      const registers = `${REGISTERS.trace}=${trace},${REGISTERS.traceFlags}=${traceFlags}`;
      const packet = `in_port=${inPort},${registers},packet=${Buffer.from(frame).toString('hex')},actions=resubmit(,0)`;
      await run('ovs-ofctl', [...OPENFLOW, 'packet-out', BRIDGE, packet], { env });
    },
    onTracedPacket(handler) {
      handlers.add(handler);
      return () => handlers.delete(handler);
    },
    stop: () => monitor.kill(),
  };
}

/** Undefined for what is no packet-in, or not all of it yet. */
function parsePacketIn(lines: readonly string[]): TracedPacket | undefined {
  const [head = ''] = lines;
  if (!head.startsWith('NXT_PACKET_IN2')) return undefined;
  const fields = new Map([...head.matchAll(/(\w+)=([^,\s]+)/g)].map(([, key = '', value = '']) => [key, value]));
  const userdata = lines.find((line) => line.startsWith(' userdata='))?.slice(' userdata='.length) ?? '';
  const frame = lines.flatMap((line) => {
    // Offset, then 16 octets, then the same as text.
    const match = /^[0-9a-f]{8} {2}([0-9a-f]{2}(?:[ -][0-9a-f]{2})*)/.exec(line);
    return match === null ? [] : (match[1] ?? '').split(/[ -]/).map((octet) => Number.parseInt(octet, 16));
  });
  if (frame.length < Number(fields.get('data_len') ?? Number.POSITIVE_INFINITY)) return undefined;
  const registers = Object.fromEntries(
    Object.entries(REGISTERS).map(([name, register]) => [name, Number(fields.get(register) ?? 0)]),
  );
  const source = fields.get('tun_src');
  return {
    point: Number.parseInt(userdata.slice(0, 2), 16),
    table: Number(fields.get('table_id') ?? 0),
    cookie: BigInt(fields.get('cookie') ?? 0),
    registers,
    tunnel:
      source === undefined
        ? undefined
        : { source, destination: fields.get('tun_dst') ?? '', vni: Number(fields.get('tun_id') ?? 0) },
    frame: Uint8Array.from(frame),
  };
}

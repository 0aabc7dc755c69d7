import { setTimeout as delay } from 'node:timers/promises';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createLab } from '../../src/lab/lab.ts';
import { labSpec } from '../../src/lab/spec.ts';
import {
  DROP_REASONS,
  OBSERVATION_POINTS,
  REGISTERS as R,
  TRACE_FLAG_MARKED,
  TRACE_OPTION,
} from '../../src/model/datapath.ts';
import type { TraceSpec } from '../../src/model/trace.ts';
import { createTraceCoordinator, type TraceCoordinator } from '../../src/trace/coordinator.ts';
import { createTracePoint, type TracePoint } from '../../src/trace/trace-point.ts';
import { parseIp, parseMac } from '../../src/wire/address.ts';
import { onDatapath, PATIENCE } from '../support/datapath.ts';
import { createMemoryBus } from '../support/memory-bus.ts';
import { createOfctlSwitch } from '../support/ofctl-switch.ts';
import { documentsOf, endpointOf } from '../support/trace-topology.ts';

/*
 * Traces on two real hosts. The flows are written by hand to the contract of src/model/datapath.ts, and switches are spoken to by Open vSwitch's
 * own tools: what is under test is the trace alone.
 */
const VNI = 100;
const RULE = {
  number: 1003,
  name: 'no-telnet',
  policy: 'front',
  tier: 'application',
  direction: 'ingress',
  action: 'deny',
} as const;
const TABLES = { classify: 0, destination: 60, policy: 70, output: 90, drop: 99 } as const;
const TUNNEL_PORT = 'gnv0';

const lab = createLab(onDatapath(labSpec({ instance: `tr-${process.pid}`, hosts: 2, vmsPerHost: 2 })));
const bus = createMemoryBus();
const points: TracePoint[] = [];
const closing: (() => void)[] = [];
let coordinator: TraceCoordinator;
/** iface-id -> OpenFlow port, a host. */
const ports = new Map<string, Map<string, number>>();
/** Frames as each host's switch handed them over. */
const frames = new Map<string, Uint8Array[]>();
let gone: string | undefined;

const address = (vm: string) => lab.vm(vm).ip.split('/')[0] ?? '';
async function on(host: string, ...argv: string[]): Promise<string> {
  const result = await lab.exec(host, argv);
  expect(result, argv.join(' ')).toMatchObject({ status: 0 });
  return result.stdout;
}

/** The contract in a handful of flows: classify, find the destination, one policy rule, and the tails. */
function flowsOf(host: string): string[] {
  const goto = (table: keyof typeof TABLES) => `resubmit(,${TABLES[table]})`;
  const set = (field: string, value: number | string) => `set_field:${value}->${field}`;
  const marked = `${R.traceFlags}=${TRACE_FLAG_MARKED}/${TRACE_FLAG_MARKED}`;
  const tell = (point: keyof typeof OBSERVATION_POINTS) =>
    `controller(userdata=0${OBSERVATION_POINTS[point]},max_len=65535)`;
  const drop = (reason: keyof typeof DROP_REASONS) => `${set(R.reason, DROP_REASONS[reason].number)},${goto('drop')}`;
  const option = TRACE_OPTION.field;
  const tunnel = `move:${R.network}[0..23]->tun_id[0..23],move:${R.tunnelDestination}[]->tun_dst[]`;
  const flows = [
    `table=0,in_port=${TUNNEL_PORT},actions=move:${option}[32..63]->${R.trace}[],move:${option}[0..31]->${R.traceFlags}[],move:tun_id[0..23]->${R.network}[0..23],${goto('destination')}`,
    `table=${TABLES.destination},priority=0,actions=${drop('UNKNOWN_DESTINATION')}`,
    `table=${TABLES.policy},priority=10,tcp,tp_dst=23,actions=${set(R.ingressRule, RULE.number)},${drop('POLICY_DENY')}`,
    `table=${TABLES.policy},priority=0,actions=${goto('output')}`,
    `table=${TABLES.drop},${marked},actions=${tell('dropped')}`,
  ];
  for (const vm of lab.vms) {
    const port = ports.get(vm.host)?.get(vm.ifaceId) ?? 0;
    const to = `table=${TABLES.destination},priority=10,dl_dst=${vm.mac}`;
    const arp = `table=${TABLES.destination},priority=20,arp,arp_op=1,arp_tpa=${address(vm.name)}`;
    if (vm.host !== host) {
      const remote = `${set(R.tunnelDestination, hex(lab.host(vm.host).encapIp))},${goto('output')}`;
      flows.push(`${to},actions=${remote}`, `${arp},actions=${remote}`);
      continue;
    }
    flows.push(
      `table=0,in_port=${port},actions=${set(R.source, port)},${set(R.network, VNI)},${set(R.sourceNetwork, VNI)},${goto('destination')}`,
      `${to},actions=${set(R.destination, port)},${goto('policy')}`,
      `${arp},actions=${set(R.destination, port)},${goto('policy')}`,
      `table=${TABLES.output},priority=20,${marked},${R.destination}=${port},actions=${tell('delivered')}`,
      `table=${TABLES.output},priority=10,${R.destination}=${port},actions=output:${port}`,
    );
  }
  for (const peer of lab.hosts.filter((one) => one.name !== host)) {
    const there = `${R.tunnelDestination}=${hex(peer.encapIp)}`;
    flows.push(
      `table=${TABLES.output},priority=20,${marked},${there},actions=${tell('tunnelled')},${tunnel},move:${R.trace}[]->${option}[32..63],move:${R.traceFlags}[]->${option}[0..31],output:${TUNNEL_PORT}`,
      `table=${TABLES.output},priority=10,${there},actions=${tunnel},output:${TUNNEL_PORT}`,
    );
  }
  return flows;
}

function hex(ipv4: string): string {
  return `0x${ipv4
    .split('.')
    .map((octet) => Number(octet).toString(16).padStart(2, '0'))
    .join('')}`;
}

beforeAll(async () => {
  await lab.up();
  for (const host of lab.hosts) {
    const own = new Map<string, number>();
    for (const vm of host.vms) {
      own.set(vm.ifaceId, Number(await on(host.name, 'ovs-vsctl', 'get', 'Interface', vm.tap, 'ofport')));
    }
    ports.set(host.name, own);
  }
  const now = () => Math.round((performance.timeOrigin + performance.now()) * 1000);
  for (const host of lab.hosts) {
    const map = `{class=${TRACE_OPTION.class},type=${TRACE_OPTION.type},len=${TRACE_OPTION.length}}->${TRACE_OPTION.field}`;
    await on(host.name, 'ovs-ofctl', '-O', 'OpenFlow15', 'add-tlv-map', 'br-int', map);
    for (const flow of flowsOf(host.name))
      await on(host.name, 'ovs-ofctl', '-O', 'OpenFlow15', 'add-flow', 'br-int', flow);
    const own = ports.get(host.name) ?? new Map<string, number>();
    const ofctl = await createOfctlSwitch(host);
    closing.push(() => ofctl.stop());
    frames.set(host.name, []);
    ofctl.onTracedPacket((packet) => frames.get(host.name)?.push(packet.frame));
    const point = createTracePoint(
      { host: host.name },
      {
        bus,
        switch: ofctl,
        portOf: (ifaceId) => {
          const ofport = own.get(ifaceId);
          return ifaceId === gone || ofport === undefined ? undefined : { ofport, zone: ofport };
        },
        endpointAt: (port) => {
          const vm = host.vms.find((one) => own.get(one.ifaceId) === port);
          return vm === undefined ? null : { ifaceId: vm.ifaceId, name: vm.name };
        },
        tableName: (table) => Object.entries(TABLES).find(([, number]) => number === table)?.[0],
        now,
        log: console,
        metrics: new Registry(),
      },
    );
    await point.start();
    points.push(point);
  }
  coordinator = createTraceCoordinator(
    {},
    {
      bus,
      topology: () => ({
        documents: documentsOf(
          `{kind: Network, metadata: {name: front}, spec: {subnets: [10.0.0.0/16]}, status: {vni: ${VNI}}}`,
        ),
        endpoints: lab.vms.map((vm) =>
          endpointOf({
            ifaceId: vm.ifaceId,
            name: vm.name,
            network: 'front',
            vni: VNI,
            mac: parseMac(vm.mac) ?? 0,
            addresses: [parseIp(address(vm.name)) ?? 0],
            host: vm.host,
            encapAddress: parseIp(lab.host(vm.host).encapIp) ?? 0,
          }),
        ),
      }),
      rules: () => (number) => (number === RULE.number ? RULE : undefined),
      hosts: () => lab.hosts.map(({ name, encapIp }) => ({ host: name, encapAddress: encapIp, ageMs: 100 })),
      now,
      log: console,
      metrics: new Registry(),
    },
  );
  await coordinator.start();
});

afterAll(async () => {
  await coordinator?.stop();
  for (const point of points) await point.stop();
  for (const close of closing) close();
  await lab.down();
});

const ask = (changes: Partial<TraceSpec> = {}) =>
  coordinator.trace({
    source: 'vm-1-1',
    destination: 'vm-2-1',
    protocol: 'tcp',
    destinationPort: 80,
    timeoutMs: 5000 * PATIENCE,
    ...changes,
  });
const steps = (hops: readonly { host: string; component: string; action: string }[]) =>
  hops.map((hop) => `${hop.host} ${hop.component} ${hop.action}`);

describe('a trace on two real hosts', () => {
  it('is delivered over the tunnel, seen by both hosts, long before its timeout, and stops at the last port', async () => {
    const before = await lab.guestCounters('vm-2-1');
    const { request, observations, verdict } = await ask({ size: 300 });
    expect(verdict).toMatchObject({ result: 'delivered', host: 'host-2', table: { number: 90, name: 'output' } });
    expect(observations.map((o) => `${o.host} ${o.point}`).toSorted()).toEqual([
      'host-1 injected',
      'host-1 tunnelled',
      'host-2 delivered',
    ]);
    expect(observations.find((o) => o.host === 'host-2')).toMatchObject({
      number: request.number,
      tunnel: { source: '172.31.0.1', destination: '172.31.0.2', vni: VNI },
      endpoint: { name: 'vm-2-1' },
    });
    expect(steps(verdict.hops)).toEqual([
      'host-1 Injection Injected',
      'host-1 PortSecurity Allowed',
      'host-1 EgressPolicy Allowed',
      'host-1 Forwarding Forwarded',
      'host-1 Tunnel Sent',
      'host-2 Tunnel Received',
      'host-2 IngressPolicy Allowed',
      'host-2 Output Delivered',
    ]);
    expect(verdict.durationMicros).toBeLessThan(2_500_000 * PATIENCE);
    // The number travels beside the packet, never in it.
    expect(frames.get('host-2')?.at(-1)).toEqual(frames.get('host-1')?.at(-1));
    expect(frames.get('host-2')?.at(-1)?.length).toBe(314);
    expect(await lab.guestCounters('vm-2-1')).toEqual(before);
  });

  it('names the rule that drops it on the far host', async () => {
    const { verdict } = await ask({ destinationPort: 23 });
    expect(verdict).toMatchObject({ result: 'dropped', host: 'host-2', cause: 'POLICY_DENY', rule: RULE });
    expect(verdict.table).toEqual({ number: 99, name: 'drop' });
    expect(steps(verdict.hops).at(-1)).toBe('host-2 IngressPolicy Dropped');
  });

  it('stays on one host where both ends are there', async () => {
    const { verdict } = await ask({ destination: 'vm-1-2', protocol: 'icmp' });
    expect(verdict).toMatchObject({ result: 'delivered', host: 'host-1' });
    expect(new Set(verdict.hops.map((hop) => hop.host))).toEqual(new Set(['host-1']));
  });

  it('is dropped at its source where nobody has the address', async () => {
    const { verdict, observations } = await ask({ destination: '10.0.9.9', protocol: 'udp' });
    expect(verdict).toMatchObject({ result: 'dropped', host: 'host-1', cause: 'UNKNOWN_DESTINATION' });
    expect(observations.find((o) => o.point === 'dropped')?.packet).toBe('10.0.1.1 asks for 10.0.9.9 arp');
  });

  it('keeps fifty at once apart', async () => {
    const all = await Promise.all(
      Array.from({ length: 50 }, (_, i) =>
        ask({
          source: i % 2 ? 'vm-1-1' : 'vm-2-2',
          destination: i % 2 ? 'vm-2-1' : 'vm-1-2',
          destinationPort: i % 5 ? 80 : 23,
          timeoutMs: 30_000,
        }),
      ),
    );
    expect(all.map(({ verdict }) => verdict.result)).toEqual(
      Array.from({ length: 50 }, (_, i) => (i % 5 ? 'delivered' : 'dropped')),
    );
    expect(all.map(({ verdict }) => verdict.host)).toEqual(
      Array.from({ length: 50 }, (_, i) => (i % 2 ? 'host-2' : 'host-1')),
    );
  });

  it('does not touch ordinary traffic', async () => {
    const count = () => [...frames.values()].map((list) => list.length);
    const before = count();
    const ping = await lab.exec('vm-1-1', ['ping', '-c', '3', '-i', '0.05', '-W', '2', address('vm-2-1')]);
    expect(ping.status).toBe(0);
    expect(count()).toEqual(before);
  });

  it('says that the endpoint has left its host', async () => {
    gone = lab.vm('vm-1-1').ifaceId;
    try {
      expect((await ask()).verdict).toMatchObject({ result: 'inconclusive', cause: 'VIF_DOWN', host: 'host-1' });
    } finally {
      gone = undefined;
    }
  });

  it('is lost between both hosts, by name, where the link between them is down', async () => {
    const link = (state: string) => on('host-2', 'ip', 'link', 'set', 'uplink', state);
    await link('down');
    try {
      const { verdict } = await ask({ timeoutMs: 400 * PATIENCE });
      expect(verdict).toMatchObject({ result: 'lost', cause: 'UNDERLAY_LOSS', host: 'host-1' });
      for (const word of ['host-1', 'host-2', '172.31.0.1', '172.31.0.2']) expect(verdict.sentence).toContain(word);
      // A timer may be early by a part of a millisecond.
      expect(verdict.durationMicros).toBeGreaterThan(395_000);
    } finally {
      await link('up');
    }
    await delay(200);
    expect((await ask()).verdict.result).toBe('delivered');
  });
});

import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NOBODYS_METER } from '../../src/control/compile/build.ts';
import { compile } from '../../src/control/compile/compile.ts';
import { createFragmentLimit } from '../../src/control/fragment-limit.ts';
import { plan } from '../../src/control/intents/plan.ts';
import type { IntentState } from '../../src/control/intents/state.ts';
import { createLab } from '../../src/lab/lab.ts';
import { createUnixctl } from '../../src/link/unixctl.ts';
import {
  CT_MARK,
  DROP_REASONS,
  domainOf,
  OBSERVATION_POINTS,
  OBSERVATIONS,
  type ObservationName,
  TRACE_FLAG_MARKED,
  TRACE_OPTION,
  ZONES,
} from '../../src/model/datapath.ts';
import { isKind } from '../../src/model/documents.ts';
import { resolveEndpoints } from '../../src/model/endpoint.ts';
import type { LocalPort } from '../../src/model/local-port.ts';
import { routerMac } from '../../src/model/router-mac.ts';
import type { TracedPacket } from '../../src/trace/observe.ts';
import type { TraceSwitch } from '../../src/trace/trace-point.ts';
import { parseIp, parseIpv4, parseMac } from '../../src/wire/address.ts';
import { encodePacket } from '../../src/wire/packet/encode.ts';
import { addressRequest, echoRequest, tcpSyn } from '../../src/wire/packet/guest-packets.ts';
import { DATAPATH, onDatapath, PATIENCE } from '../support/datapath.ts';
import { flowText } from '../support/flow-text.ts';
import { createOfctlSwitch } from '../support/ofctl-switch.ts';
import { type Attempt, fateOf } from '../support/policy-oracle.ts';
import { applied, SHOP_YAML, shopLab, shopLocations } from '../support/shop.ts';

/*
 * The example's documents on two real switches. Flows travel by ovs-ofctl, so that compiler and pipeline are under test, and our OpenFlow codec is not.
 */
let state: IntentState = applied(SHOP_YAML);
const lab = createLab(onDatapath(shopLab(`ct-${process.pid}`, state.documents.values())));
/** What a guest waits for an answer, and a test for an observation. */
const ANSWER_S = 2 * PATIENCE;
const OBSERVED_MS = 5_000 * PATIENCE;
const ports = new Map<string, LocalPort[]>();
const tunnels = new Map<string, number>();
const OPENFLOW = ['-O', 'OpenFlow15'];
const IS_KERNEL = DATAPATH === 'system';

const addressOf = (vm: string): string => lab.vm(vm).ip.split('/')[0]!;
const portOf = (vm: string): LocalPort =>
  ports.get(lab.vm(vm).host)!.find((port) => port.ifaceId === lab.vm(vm).ifaceId)!;

async function on(host: string, argv: readonly string[], input?: string): Promise<string> {
  const result = await lab.exec(host, argv, input === undefined ? {} : { input });
  expect(result, argv.join(' ')).toMatchObject({ status: 0 });
  return result.stdout;
}

async function load(): Promise<void> {
  const documents = [...state.documents.values()];
  const endpoints = resolveEndpoints(documents, shopLocations(documents));
  await Promise.all(
    lab.hosts.map(async (host) => {
      const flows = compile({
        documents,
        endpoints,
        ports: ports.get(host.name)!,
        tunnel: tunnels.get(host.name)!,
        encapAddress: parseIp(host.encapIp)!,
        countedBy: IS_KERNEL ? 'conntrack' : 'ipfix',
      });
      const text = flows.map((flow) => `${flowText(flow)}\n`).join('');
      await on(host.name, ['ovs-ofctl', ...OPENFLOW, '--bundle', 'replace-flows', 'br-int', '-'], text);
    }),
  );
}

beforeAll(async () => {
  await lab.up();
  for (const host of lab.hosts) {
    const ofport = async (name: string): Promise<number> =>
      Number(await on(host.name, ['ovs-vsctl', 'get', 'Interface', name, 'ofport']));
    tunnels.set(host.name, await ofport('gnv0'));
    const own: LocalPort[] = [];
    for (const [at, vm] of host.vms.entries())
      own.push({ ofport: await ofport(vm.tap), zone: ZONES.first + at, ifaceId: vm.ifaceId, name: vm.tap });
    ports.set(host.name, own);
    const { class: optionClass, type, length, field } = TRACE_OPTION;
    for (const meter of [NOBODYS_METER, ...own.map(({ zone }) => zone)])
      await on(host.name, [
        'ovs-ofctl',
        ...OPENFLOW,
        'add-meter',
        'br-int',
        `meter=${meter},pktps,band=type=drop,rate=100`,
      ]);
    const map = `{class=${optionClass},type=${type},len=${length}}->${field}`;
    await on(host.name, ['ovs-ofctl', ...OPENFLOW, 'add-tlv-map', 'br-int', map]);
  }
  await load();
});
afterAll(() => lab.down());

const PAIRS = lab.vms.flatMap((from) => lab.vms.filter((to) => to !== from).map((to) => [from.name, to.name] as const));
const KINDS = [
  ['icmp', 0],
  ['tcp', 5432],
  ['tcp', 5439],
  ['tcp', 8080],
] as const;
const ATTEMPTS: readonly Attempt[] = PAIRS.flatMap(([from, to]) =>
  KINDS.map(([protocol, port]) => ({ from, to, protocol, port })),
);
const wanted = (attempt: Attempt) => fateOf([...state.documents.values()], attempt);

describe('the shop on two hosts', () => {
  /** What became of each attempt, all at once. Nobody listens: what comes through is refused by the guest, what is dropped takes all the time it is given. */
  async function real(attempts: readonly Attempt[]): Promise<string[]> {
    const probes = lab.vms.map(async ({ name }) => {
      const own = attempts.filter(({ from }) => from === name);
      const lines = own.map(({ to, protocol, port }, at) => {
        const probe =
          protocol === 'icmp'
            ? `ping -c 1 -w ${ANSWER_S} ${addressOf(to)}`
            : `timeout ${ANSWER_S} bash -c '</dev/tcp/${addressOf(to)}/${port}'`;
        return `(${probe} >/dev/null 2>&1; echo ${at} $?) &`;
      });
      const { stdout } = await lab.exec(name, ['bash', '-c', `${lines.join('\n')}\nwait`]);
      const statuses = new Map(
        stdout
          .trim()
          .split('\n')
          .map((line) => line.split(' ').map(Number) as [number, number]),
      );
      return own.map((attempt, at) => {
        const status = statuses.get(at);
        const isThrough = attempt.protocol === 'icmp' ? status === 0 : status === 1;
        return told(attempt, isThrough ? 'delivered' : 'dropped');
      });
    });
    return (await Promise.all(probes)).flat();
  }
  const told = ({ from, to, protocol, port }: Attempt, verdict: string): string =>
    `${from} ${to} ${protocol} ${port} ${verdict}`;

  it('lets through between all pairs what the documents allow, and nothing else', async () => {
    const want = ATTEMPTS.map((one) => told(one, wanted(one).verdict));
    let seen = await real(ATTEMPTS);
    // A hundred programs at once starve an emulated machine: what was late there is asked again.
    const late = ATTEMPTS.filter((one) => wanted(one).verdict === 'delivered' && seen.includes(told(one, 'dropped')));
    if (PATIENCE > 1 && late.length > 0) {
      const second = await real(late);
      seen = [...seen.filter((line) => !late.some((one) => told(one, 'dropped') === line)), ...second];
    }
    expect(seen.toSorted()).toEqual(want.toSorted());
    expect(new Set(want.map((line) => line.split(' ').at(-1)))).toEqual(new Set(['delivered', 'dropped']));
  });

  it('answers for the router in every network', async () => {
    for (const gateway of ['10.10.1.1', '10.10.3.1']) {
      expect((await lab.exec('web-1', ['ping', '-c', '1', '-W', '2', gateway])).status).toBe(0);
    }
  });

  it('ends a connection with the rule that allowed it, and lets it go on when the rule is back', async () => {
    lab.spawn('db-1', ['ncat', '-lk', '-p', '5432', '-c', 'cat']);
    const listening = async (): Promise<boolean> =>
      (await lab.exec('db-1', ['ss', '-ltnH', 'sport', '=', '5432'])).stdout !== '';
    while (!(await listening())) await delay(50);
    const talk = (text: string, seconds: number): string =>
      `echo ${text} >&3; read -r -t ${seconds} x <&3; echo "${text}: $x"`;
    const steps = `${lab.runDir}/steps`;
    const script = `exec 3<>/dev/tcp/${addressOf('db-1')}/5432; ${talk('one', 5)}; touch ${steps}.1; until [ -e ${steps}.2 ]; do sleep 0.02; done; ${talk('two', 1)}; touch ${steps}.3; until [ -e ${steps}.4 ]; do sleep 0.02; done; read -r -t 10 x <&3; echo "late: $x"`;
    const client = lab.exec('app-1', ['bash', '-c', script]);
    const reached = async (step: number): Promise<void> => {
      while ((await lab.exec('h1', ['test', '-e', `${steps}.${step}`])).status !== 0) await delay(20);
    };
    await reached(1);
    const entries = await on('h2', ['ovs-appctl', 'dpctl/dump-conntrack']);
    const rule = wanted({ from: 'app-1', to: 'db-1', protocol: 'tcp', port: 5432 }).ingressRule;
    expect(entries).toMatch(
      new RegExp(`src=${addressOf('app-1')}.*dport=5432.*zone=${portOf('db-1').zone},mark=${CT_MARK.ours + rule}\\b`),
    );

    const before = state;
    const policy = [...state.documents.values()].find(
      (one) => isKind(one, 'Policy') && one.metadata.name === 'databases',
    );
    if (policy === undefined || !isKind(policy, 'Policy')) throw new Error('the example has no policy named databases');
    const { status: _, ...document } = policy;
    const without = { ...document, spec: { ...document.spec, ingress: document.spec.ingress!.slice(1) } };
    state = plan(state, [{ document: without, origin: { file: 'test', index: 1, line: 1 } }]).state;
    await load();
    await on('h1', ['touch', `${steps}.2`]);
    await reached(3);
    state = before;
    await load();
    await on('h1', ['touch', `${steps}.4`]);
    expect((await client).stdout).toBe('one: one\ntwo: \nlate: two\n');
  });
});

describe('traced packets on the shop', () => {
  const switches = new Map<string, TraceSwitch & { stop(): void }>();
  const seen: { host: string; packet: TracedPacket }[] = [];
  beforeAll(async () => {
    for (const host of lab.hosts) {
      const one = await createOfctlSwitch(host);
      switches.set(host.name, one);
      one.onTracedPacket((packet) => seen.push({ host: host.name, packet }));
    }
  });
  afterAll(() => {
    for (const one of switches.values()) one.stop();
  });

  const inject = (from: string, trace: number, frame: Uint8Array): Promise<void> =>
    switches
      .get(lab.vm(from).host)!
      .inject({ inPort: portOf(from).ofport, trace, traceFlags: TRACE_FLAG_MARKED, frame });
  const ends = (from: string, to: string, ttl = 64) => ({
    sourceMac: parseMac(lab.vm(from).mac)!,
    destinationMac: from.split('-')[0] === to.split('-')[0] ? parseMac(lab.vm(to).mac)! : routerMac('shop'),
    source: parseIp(addressOf(from))!,
    destination: parseIp(addressOf(to))!,
    ttl,
    identification: 1,
  });
  const told = (trace: number) => seen.filter(({ packet }) => packet.registers.trace === trace);
  const last = async (trace: number, points: readonly number[]): Promise<TracedPacket> => {
    const done = () => told(trace).find(({ packet }) => points.includes(packet.point));
    for (const end = Date.now() + OBSERVED_MS; done() === undefined; await delay(10)) {
      if (Date.now() > end) throw new Error(`trace ${trace} never came to point ${points.join(' or ')}`);
    }
    return done()!.packet;
  };
  const { delivered, dropped, answered, tunnelled } = OBSERVATION_POINTS;

  it('end as real ones do, between all pairs, with the rule that decided, and reach no guest', async () => {
    const counters = await Promise.all(lab.vms.map(({ name }) => lab.guestCounters(name)));
    // Those of vNICs; the kernel tracks the tunnel's own packets too, without an agent that keeps it from that.
    const conntrack = async (): Promise<number> => {
      const dumps = await Promise.all(lab.hosts.map(({ name }) => on(name, ['ovs-appctl', 'dpctl/dump-conntrack'])));
      return dumps
        .join('')
        .split('\n')
        .filter((line) => line.includes('mark=')).length;
    };
    const connections = await conntrack();
    const chosen = ATTEMPTS.filter(({ port }) => port !== 5439);
    const results: unknown[] = [];
    await Promise.all(
      [...Map.groupBy(chosen, ({ from }) => lab.vm(from).host).values()].map(async (own) => {
        for (const one of own) {
          const trace = 1000 + ATTEMPTS.indexOf(one);
          const packet =
            one.protocol === 'icmp'
              ? echoRequest(ends(one.from, one.to), { identifier: 1, sequence: 1 })
              : tcpSyn(ends(one.from, one.to), { sourcePort: 40_000, destinationPort: one.port, sequence: 1 });
          await inject(one.from, trace, encodePacket(packet));
          const end = await last(trace, [delivered, dropped]);
          const want = wanted(one);
          // What the two hosts tell comes by two connections, in any order.
          const leftItsHost = (end.registers.source ?? 0) === 0;
          const first = leftItsHost ? await last(trace, [tunnelled]) : end;
          results.push({ one, want });
          expect
            .soft({
              ...one,
              point: end.point,
              reason: end.registers.reason ?? 0,
              ingressRule: end.registers.ingressRule ?? 0,
              egressRule: first.registers.egressRule ?? 0,
              leftItsHost,
            })
            .toEqual({
              ...one,
              point: OBSERVATION_POINTS[want.verdict],
              reason: want.reason,
              ingressRule: want.ingressRule,
              egressRule: want.egressRule,
              leftItsHost: lab.vm(one.from).host !== lab.vm(one.to).host && want.egressRule === 0,
            });
        }
      }),
    );
    expect(results).toHaveLength(chosen.length);
    expect(await Promise.all(lab.vms.map(({ name }) => lab.guestCounters(name)))).toEqual(counters);
    // Old ones may have gone meanwhile.
    expect(await conntrack()).toBeLessThanOrEqual(connections);
  });

  it('are answered by the network where it answers', async () => {
    await inject(
      'web-1',
      1,
      encodePacket(
        addressRequest(ends('web-1', 'web-2').sourceMac, parseIpv4(addressOf('web-1'))!, parseIpv4('10.10.1.1')!),
      ),
    );
    expect(await last(1, [answered])).toMatchObject({ registers: { source: portOf('web-1').zone } });
    const echo = { ...ends('web-1', 'app-1'), destination: parseIpv4('10.10.2.1')! };
    await inject('web-1', 2, encodePacket(echoRequest(echo, { identifier: 1, sequence: 1 })));
    await last(2, [answered]);
  });

  it('name the built-in reason that dropped them', async () => {
    const spoofed = { ...ends('web-1', 'web-2'), source: parseIpv4('10.10.1.99')! };
    await inject('web-1', 3, encodePacket(echoRequest(spoofed, { identifier: 1, sequence: 1 })));
    expect((await last(3, [dropped])).registers.reason).toBe(DROP_REASONS.PORT_SECURITY.number);
    await inject('web-1', 4, encodePacket(echoRequest(ends('web-1', 'app-1', 1), { identifier: 1, sequence: 1 })));
    expect((await last(4, [dropped])).registers.reason).toBe(DROP_REASONS.TTL_EXCEEDED.number);
    const nobody = { ...ends('web-1', 'app-1'), destination: parseIpv4('10.10.2.77')! };
    await inject('web-1', 5, encodePacket(echoRequest(nobody, { identifier: 1, sequence: 1 })));
    expect((await last(5, [dropped])).registers.reason).toBe(DROP_REASONS.UNKNOWN_DESTINATION.number);
  });
});

// Where the kernel counts, nothing is sampled.
it.skipIf(IS_KERNEL)('counts each packet of a guest once, where it enters and where it leaves', async () => {
  const samples = async (host: string, kind: ObservationName, vm: string): Promise<number> => {
    const flows = await on(host, ['ovs-ofctl', ...OPENFLOW, 'dump-flows', 'br-int']);
    const own = flows
      .split('\n')
      .filter((line) => line.includes(`obs_domain_id=${domainOf(OBSERVATIONS[kind], portOf(vm).zone)},`));
    return own.reduce((sum, line) => sum + Number(/n_packets=(\d+)/.exec(line)?.[1]), 0);
  };
  const count = async () => [
    await samples('h1', 'received', 'web-1'),
    await samples('h2', 'delivered', 'web-2'),
    await samples('h2', 'received', 'web-2'),
    await samples('h1', 'delivered', 'web-1'),
  ];
  // Neighbours know each other first and for good, so that no ARP falls into the count.
  await lab.exec('web-1', ['ping', '-c', '1', addressOf('web-2')]);
  for (const [one, other] of [
    ['web-1', 'web-2'],
    ['web-2', 'web-1'],
  ] as const) {
    const known = ['ip', 'neigh', 'replace', addressOf(other), 'lladdr', lab.vm(other).mac, 'dev', 'eth0'];
    expect(await lab.exec(one, known)).toMatchObject({ status: 0 });
  }
  await delay(1200);
  const before = await count();
  await lab.exec('web-1', ['ping', '-c', '20', '-i', '0.02', addressOf('web-2')]);
  // The switch moves the counters of its cache to the flows about once a second.
  await delay(1500);
  const after = await count();
  expect(after.map((value, at) => value - before[at]!)).toEqual([20, 20, 20, 20]);
});

describe('datagrams larger than the MTU', () => {
  const PORT = 5000;
  const DENIED_PORT = 5001;
  /** Sends datagrams of a size, one after the other, waits for each to come back whole, and prints how many did. */
  const ASK = `
    const [address, port, size, count] = process.argv.slice(1);
    const socket = require('node:dgram').createSocket('udp4');
    let sent = 0, whole = 0, timer;
    const next = () => {
      if (sent === Number(count)) { console.log(whole); socket.close(); return; }
      socket.send(Buffer.alloc(Number(size), ++sent), Number(port), address);
      timer = setTimeout(next, 1000);
    };
    socket.on('message', (message) => {
      if (message.equals(Buffer.alloc(Number(size), sent))) whole++;
      clearTimeout(timer);
      next();
    });
    next();`;
  const ANSWER = `
    for (const port of process.argv.slice(1)) {
      const socket = require('node:dgram').createSocket('udp4');
      socket.on('message', (message, from) => socket.send(message, from.port, from.address));
      socket.bind(Number(port));
    }`;
  const node = (script: string, ...argv: (string | number)[]): string[] => [
    process.execPath,
    '-e',
    script,
    ...argv.map(String),
  ];
  const ask = async (from: string, to: string, port: number, size: number, count: number): Promise<number> =>
    Number((await lab.exec(from, node(ASK, addressOf(to), port, size, count))).stdout);

  const packetOut = (frame: Uint8Array): string[] => {
    const words = `in_port=${portOf('web-1').ofport} packet=${Buffer.from(frame).toString('hex')} actions=resubmit(,0)`;
    return ['ovs-ofctl', ...OPENFLOW, 'packet-out', 'br-int', words];
  };
  /** The first of a datagram of web-1 to db-1, on another host. */
  const loneFragment = (identification: number): Uint8Array =>
    encodePacket({
      eth: { source: parseMac(lab.vm('web-1').mac)!, destination: routerMac('shop') },
      ipv4: {
        source: parseIpv4(addressOf('web-1'))!,
        destination: parseIpv4(addressOf('db-1'))!,
        ttl: 64,
        identification,
        // More are to come (RFC 791, section 3.1).
        moreFragments: 1,
      },
      udp: { sourcePort: 4000, destinationPort: PORT },
      payload: new Uint8Array(1280),
    });

  beforeAll(async () => {
    const yaml = `
apiVersion: sonde/v1
kind: Policy
metadata: { name: datagrams }
spec:
  tier: security
  appliesTo: [{ group: databases }]
  ingress:
    - { name: asked, action: allow, from: [{ project: shop }], ports: [{ protocol: udp, port: ${PORT} }] }
    - { name: others, action: deny, ports: [{ protocol: udp }] }
`;
    state = applied(yaml, state);
    await load();
    for (const vm of ['db-1', 'db-2']) lab.spawn(vm, node(ANSWER, PORT, DENIED_PORT));
    const listening = async (vm: string): Promise<boolean> =>
      (await lab.exec(vm, ['ss', '-lunH', 'sport', '=', String(DENIED_PORT)])).stdout !== '';
    for (const vm of ['db-1', 'db-2']) while (!(await listening(vm))) await delay(50);
    if (IS_KERNEL) return;
    for (const host of lab.hosts) {
      const trouble: unknown[] = [];
      const limit = createFragmentLimit({
        call: createUnixctl({ runDir: host.runDir }).call,
        switch: { connected: () => true, onConnected: () => {} },
        datapathType: () => 'netdev',
        onTrouble: (error) => trouble.push(error),
      });
      limit.start();
      await limit.stop();
      expect(trouble).toEqual([]);
    }
  });

  it.each([
    ['on one host', 'web-1', 'db-2'],
    ['between hosts', 'web-1', 'db-1'],
  ])('pass a rule with a port, there and back, %s, from the first one on', async (_, from, to) => {
    for (const size of [2500, 8000]) expect(await ask(from, to, PORT, size, 10), `${size} octets`).toBe(10);
    const ping = await lab.exec(from, ['ping', '-c', '3', '-i', '0.2', '-W', '2', '-s', '20000', addressOf(to)]);
    expect(ping.stdout).toContain(' 3 received');
  });

  it('do not pass where their port is denied', async () => {
    expect(await ask('web-1', 'db-2', DENIED_PORT, 2500, 1)).toBe(0);
    expect(await ask('web-1', 'db-1', DENIED_PORT, 2500, 1)).toBe(0);
  });

  it.each([1000, 576])('pass where guests have an MTU of %d', async (mtu) => {
    const setMtu = async (size: number): Promise<void> => {
      for (const vm of ['app-1', 'db-1']) await on(vm, ['ip', 'link', 'set', 'eth0', 'mtu', String(size)]);
    };
    await setMtu(mtu);
    expect(await ask('app-1', 'db-1', PORT, 2500, 5)).toBe(5);
    await setMtu(1500);
  });

  it.skipIf(IS_KERNEL)('that never become whole reach no other vNIC and are booked on none', async () => {
    // Without the rest of their datagrams. After 15 s userspace conntrack lets them go on with whatever it looks at next.
    const count = 60;
    for (let at = 0; at < count; at++) await on('h1', packetOut(loneFragment(at)));
    await delay(15_500);
    const before = await lab.guestCounters('db-2');
    const connect = `for i in $(seq 100); do timeout 1 bash -c '</dev/tcp/${addressOf('db-2')}/5432'; done`;
    await lab.exec('app-1', ['bash', '-c', connect]);
    await delay(1500);
    const after = await lab.guestCounters('db-2');
    // A SYN has 74 octets, a fragment 1,322.
    expect(after.rxBytes - before.rxBytes).toBeLessThanOrEqual(78 * (after.rxPackets - before.rxPackets));
    const drops = await on('h1', ['ovs-ofctl', ...OPENFLOW, 'dump-flows', 'br-int', 'table=110,reg6=14']);
    const booked = (match: RegExp): number =>
      drops
        .split('\n')
        .filter((line) => match.test(line))
        .reduce((sum, line) => sum + Number(/n_packets=(\d+)/.exec(line)?.[1]), 0);
    expect(booked(/priority=60/)).toBe(0);
    expect(booked(/priority=50/)).toBeGreaterThan(count / 2);
  });
});

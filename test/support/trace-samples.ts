import { DROP_REASONS, type DropReason } from '../../src/model/datapath.ts';
import type { Observation, RuleReference, TraceEnd, TraceRequest } from '../../src/model/trace.ts';
import type { ExplainContext } from '../../src/trace/explain.ts';

/** web-1 on h1 (192.0.2.1) and db-1 on h2 (192.0.2.2), both in network front, VNI 100. */
export const WEB: TraceEnd = {
  ifaceId: 'iface-web-1',
  name: 'web-1',
  address: '10.0.0.1',
  mac: '02:00:00:00:00:01',
  network: 'front',
  vni: 100,
  host: 'h1',
  encapAddress: '192.0.2.1',
};
export const DB: TraceEnd = {
  ifaceId: 'iface-db-1',
  name: 'db-1',
  address: '10.0.0.2',
  mac: '02:00:00:00:00:02',
  network: 'front',
  vni: 100,
  host: 'h2',
  encapAddress: '192.0.2.2',
};

const REQUESTED_AT = 1_700_000_000_000_000;

export function request(changes: Partial<TraceRequest> = {}): TraceRequest {
  return {
    id: '018bcfe5-6800-7000-8000-0000000004d2',
    number: 1234,
    source: WEB,
    destination: DB,
    packet: {
      protocol: 'tcp',
      sourcePort: 40_000,
      destinationPort: 5432,
      ttl: 64,
      size: null,
      ethernetDestination: '02:00:00:00:00:02',
    },
    depth: 'path',
    timeoutMs: 1000,
    requestedAt: REQUESTED_AT,
    ...changes,
  };
}

const REGISTERS = {
  source: 0,
  destination: 0,
  network: 100,
  sourceNetwork: 100,
  egressRule: 0,
  ingressRule: 0,
  reason: 0,
  tunnelDestination: null,
};

function observation(changes: Partial<Observation>): Observation {
  return {
    number: 1234,
    host: 'h1',
    at: REQUESTED_AT + 500,
    sequence: 0,
    point: 'injected',
    table: null,
    cookie: null,
    registers: null,
    tunnel: null,
    endpoint: null,
    reason: null,
    packet: null,
    error: null,
    ...changes,
  };
}

export type Registers = NonNullable<Observation['registers']>;

export function injected(changes: Partial<Observation> = {}): Observation {
  return observation({ endpoint: { ifaceId: 'iface-web-1', name: 'web-1' }, ...changes });
}

export function tunnelled(changes: Partial<Observation> = {}, registers: Partial<Registers> = {}): Observation {
  return observation({
    point: 'tunnelled',
    sequence: 1,
    at: REQUESTED_AT + 700,
    table: { number: 90, name: 'output' },
    registers: { ...REGISTERS, source: 3, tunnelDestination: '192.0.2.2', ...registers },
    ...changes,
  });
}

/** At db-1 on h2, out of the tunnel. h2's clock runs behind h1's, as clocks do. */
export function delivered(changes: Partial<Observation> = {}, registers: Partial<Registers> = {}): Observation {
  return observation({
    host: 'h2',
    point: 'delivered',
    at: REQUESTED_AT - 40_000,
    table: { number: 90, name: 'output' },
    registers: { ...REGISTERS, destination: 5, sourceNetwork: 0, ...registers },
    tunnel: { source: '192.0.2.1', destination: '192.0.2.2', vni: 100 },
    endpoint: { ifaceId: 'iface-db-1', name: 'db-1' },
    ...changes,
  });
}

export function droppedAtSource(reason: DropReason, registers: Partial<Registers> = {}): Observation {
  return observation({
    point: 'dropped',
    sequence: 1,
    at: REQUESTED_AT + 700,
    table: { number: 99, name: 'drop' },
    cookie: '0x3eb',
    registers: { ...REGISTERS, source: 3, reason: DROP_REASONS[reason].number, ...registers },
    reason,
  });
}

export function droppedAtDestination(reason: DropReason, registers: Partial<Registers> = {}): Observation {
  return delivered(
    { point: 'dropped', table: { number: 99, name: 'drop' }, reason },
    { reason: DROP_REASONS[reason].number, ...registers },
  );
}

export function answered(): Observation {
  return observation({ point: 'answered', sequence: 1, registers: { ...REGISTERS, source: 3 } });
}

export function failed(reason: 'VIF_DOWN' | 'CONTROLLER_DOWN', error: string): Observation {
  return observation({ point: 'failed', reason, error });
}

export const RULE: RuleReference = {
  number: 1003,
  name: 'no-database',
  policy: 'front',
  tier: 'application',
  direction: 'ingress',
  action: 'deny',
};

/** Both hosts are alive; `ages` says otherwise, in milliseconds, null for a host that never spoke. */
export function context(ages: Partial<Record<'h1' | 'h2', number | null>> = {}): ExplainContext {
  return {
    rules: (number) => (number === RULE.number ? RULE : undefined),
    hosts: [
      { host: 'h1', encapAddress: '192.0.2.1', ageMs: ages.h1 === undefined ? 800 : ages.h1 },
      { host: 'h2', encapAddress: '192.0.2.2', ageMs: ages.h2 === undefined ? 800 : ages.h2 },
    ].flatMap(({ ageMs, ...host }) => (ageMs === null ? [] : [{ ...host, ageMs }])),
    staleAfterMs: 15_000,
    now: REQUESTED_AT + 3_200,
  };
}

import { FIELDS, type FieldName } from '../../src/wire/openflow/fields.ts';
import { type Action, type FieldSlice, type Flow, type Match, PORT } from '../../src/wire/openflow/flow.ts';

/** A packet with its metadata; a field that is not there is 0. */
export type Fields = Partial<Record<FieldName, bigint>>;

/** What a switch did with a packet. */
export type Effect =
  | { readonly type: 'output'; readonly port: number; readonly fields: Fields }
  | {
      readonly type: 'controller';
      readonly userdata: readonly number[];
      readonly table: number;
      readonly fields: Fields;
    }
  | { readonly type: 'sample'; readonly domain: number; readonly point: number; readonly isLater?: true };

const CT = { new: 1n, established: 2n, reply: 8n, tracked: 32n };
const PROTOCOL_PORTS = {
  6: ['tcp_src', 'tcp_dst'],
  17: ['udp_src', 'udp_dst'],
  132: ['sctp_src', 'sctp_dst'],
} as const;

interface Tuple {
  readonly proto: bigint;
  readonly src: bigint;
  readonly dst: bigint;
  readonly sport: bigint;
  readonly dport: bigint;
}
interface Connection {
  readonly tuple: Tuple;
  mark: bigint;
  isReplied: boolean;
}

/** Packets under one translation: the fields that decide, and of each packet what only it has. None: conntrack holds them all. */
interface Batch {
  readonly fields: Fields;
  packets: readonly Fields[];
}

/** What of a fragment is not the others': its place, and the ports that only the first has. */
const OWN = ['ip_frag', ...Object.values(PROTOCOL_PORTS).flat()] as const;

/**
 * A small interpreter of flow tables: the fate of a packet, by OpenFlow's rules and no others (OpenFlow 1.5.1 section 5; ovs-actions(7);
 * conjunctions and conntrack as in ovs-fields(7)). It refuses what the switch would leave undefined: two flows of one priority that both match.
 *
 * Fragments go as through the userspace datapath (lib/ipf.c): each `ct` holds them until all of one datagram are there, and then lets them go on, after the last one
 * and by its translation, with what the whole came to; later ones have no ports, nor those of the original tuple.
 */
export function createFlowTables() {
  let tables = new Map<number, Flow[]>();
  const zones = new Map<number, Connection[]>();
  /** Fragments that `ct` holds, by zone and the table that they go on in. */
  let held = new Map<string, Fields[]>();
  let datagramSize = 1;
  const hits = new Map<Flow, number>();

  function replace(flows: readonly Flow[]): void {
    tables = Map.groupBy(flows, (flow) => flow.table);
    for (const list of tables.values()) list.sort((a, b) => b.priority - a.priority);
  }

  function run(packet: Fields): Effect[] {
    return runFragments([packet], 1);
  }

  /** Fragments of one datagram, in the order in which they come, of as many as it has. */
  function runFragments(fragments: readonly Fields[], of: number): Effect[] {
    const effects: Effect[] = [];
    held = new Map();
    datagramSize = of;
    for (const fragment of fragments) walk(0, { fields: { ...fragment }, packets: [ownOf(fragment)] }, effects, 0);
    return effects;
  }

  function walk(table: number, batch: Batch, effects: Effect[], depth: number): void {
    if (depth > 60) throw new Error('the tables run in a circle');
    const flow = lookUp(tables.get(table) ?? [], batch.fields);
    if (flow === undefined) throw new Error(`table ${table} has no flow for the packet, not even a miss`);
    hits.set(flow, (hits.get(flow) ?? 0) + batch.packets.length);
    for (const action of flow.actions) act(action, table, batch, effects, depth);
    if (flow.gotoTable !== undefined) {
      if (flow.gotoTable <= table) throw new Error(`goto from table ${table} to ${flow.gotoTable}`);
      walk(flow.gotoTable, batch, effects, depth);
    }
  }

  function act(action: Action, table: number, batch: Batch, effects: Effect[], depth: number): void {
    const { fields } = batch;
    switch (action.type) {
      case 'set_field': {
        // The same metadata under its 16-bit name.
        if (action.field === 'nxm_in_port') {
          fields.in_port = BigInt(action.value);
          return;
        }
        const mask = action.mask === undefined ? ones(action.field) : BigInt(action.mask);
        fields[action.field] = ((fields[action.field] ?? 0n) & ~mask) | (BigInt(action.value) & mask);
        return;
      }
      case 'copy_field':
        write(fields, action.dst, read(fields, action.src));
        return;
      case 'resubmit':
        walk(action.table!, batch, effects, depth + 1);
        return;
      case 'dec_ttl':
        fields.nw_ttl = (fields.nw_ttl ?? 0n) - 1n;
        return;
      case 'output': {
        // A switch does not send a packet back where it came from but by PORT.inPort.
        if (BigInt(action.port) === (fields.in_port ?? 0n)) return;
        const port = action.port === PORT.inPort ? Number(fields.in_port) : action.port;
        for (const own of batch.packets) effects.push({ type: 'output', port, fields: { ...fields, ...own } });
        return;
      }
      case 'meter':
        // Its rate is the switch's affair; here every packet is within it.
        return;
      case 'sample':
        for (const own of batch.packets)
          effects.push({
            type: 'sample',
            domain: action.domain,
            point: action.point,
            ...(isLater(own) ? { isLater: true } : {}),
          });
        return;
      case 'controller':
        for (const own of batch.packets)
          effects.push({
            type: 'controller',
            userdata: [...(action.userdata ?? [])],
            table,
            fields: { ...fields, ...own },
          });
        return;
      case 'ct': {
        const zone = Number(typeof action.zone === 'object' ? read(fields, action.zone) : (action.zone ?? 0));
        batch.packets = gather(`${zone} ${action.table}`, batch);
        const first = batch.packets.find((own) => !isLater(own));
        if (first === undefined) return;
        const tracked = track(zone, { ...fields, ...first });
        if (action.commit === true && tracked.connection === undefined) {
          const inside = { fields: tracked.fields, packets: [] };
          for (const nested of action.actions ?? []) act(nested, table, inside, effects, depth);
          const list = zones.get(zone) ?? [];
          zones.set(zone, list);
          list.push({ tuple: tracked.tuple, mark: tracked.fields.ct_mark ?? 0n, isReplied: false });
        }
        if (action.table === undefined) return;
        for (const own of batch.packets) {
          const seen = { ...tracked.fields, ...own };
          if (isLater(own))
            for (const field of [...Object.values(PROTOCOL_PORTS).flat(), 'ct_tp_src', 'ct_tp_dst'] as const)
              delete seen[field];
          walk(action.table, { fields: seen, packets: [own] }, effects, depth + 1);
        }
        return;
      }
      default:
        throw new Error(`the pipeline has no ${action.type} action; teach it to this interpreter`);
    }
  }

  /** Whole packets as they are; of a fragment all of its datagram, once they are there. */
  function gather(place: string, { fields, packets }: Batch): readonly Fields[] {
    if (!fields.ip_frag) return packets;
    const all = [...(held.get(place) ?? []), ...packets];
    held.set(place, all.length < datagramSize ? all : []);
    return all.length < datagramSize ? [] : all;
  }

  function track(zone: number, fields: Fields) {
    const tuple = tupleOf(fields);
    const list = zones.get(zone) ?? [];
    const forward = list.find((one) => same(one.tuple, tuple));
    const backward = list.find((one) => same(one.tuple, reversed(tuple)));
    const connection = forward ?? backward;
    if (backward !== undefined && forward === undefined) backward.isReplied = true;
    const state =
      CT.tracked |
      (connection === undefined || (!connection.isReplied && forward !== undefined) ? CT.new : CT.established) |
      (forward === undefined && backward !== undefined ? CT.reply : 0n);
    const original = connection?.tuple ?? tuple;
    return {
      tuple,
      connection,
      fields: {
        ...fields,
        ct_state: state,
        ct_zone: BigInt(zone),
        ct_mark: connection?.mark ?? 0n,
        ct_nw_proto: original.proto,
        ct_nw_src: original.src,
        ct_nw_dst: original.dst,
        ct_tp_src: original.sport,
        ct_tp_dst: original.dport,
      } as Fields,
    };
  }

  return {
    replace,
    run,
    runFragments,
    /** Fragments that wait in conntrack for others of their datagram, which a switch keeps for 15 s. */
    held: (): number => [...held.values()].flat().length,
    /** Packets that flows have counted, of those that have any. */
    hits: (): ReadonlyMap<Flow, number> => hits,
    /** Connections that were committed, by zone. */
    connections: (): ReadonlyMap<number, readonly { readonly mark: bigint }[]> => zones,
  };
}

export type FlowTables = ReturnType<typeof createFlowTables>;

function lookUp(flows: readonly Flow[], fields: Fields): Flow | undefined {
  const levels = Map.groupBy(
    flows.filter((flow) => matches({ ...flow.match, conj_id: undefined } as unknown as Match, fields)),
    (flow) => flow.priority,
  );
  for (const [priority, hits] of levels) {
    const isConjunctive = (flow: Flow): boolean => flow.actions.some(({ type }) => type === 'conjunction');
    const plain = hits.filter((flow) => flow.match.conj_id === undefined && !isConjunctive(flow));
    const complete = completeConjunctions(hits.filter(isConjunctive));
    const concluded = hits.filter(
      (flow) => flow.match.conj_id !== undefined && complete.has(Number(flow.match.conj_id)),
    );
    const all = [...plain, ...concluded];
    if (all.length > 1)
      throw new Error(
        `${all.length} flows of priority ${priority} match: ${all.map((flow) => JSON.stringify(flow.match)).join(' and ')}`,
      );
    if (all[0] !== undefined) return all[0];
  }
  return undefined;
}

const isLater = (fields: Fields): boolean => ((fields.ip_frag ?? 0n) & 2n) !== 0n;

function ownOf(fields: Fields): Fields {
  if (!fields.ip_frag) return {};
  return Object.fromEntries(OWN.flatMap((name) => (fields[name] === undefined ? [] : [[name, fields[name]]])));
}

function completeConjunctions(flows: readonly Flow[]): ReadonlySet<number> {
  const clauses = new Map<number, { readonly seen: Set<number>; readonly of: number }>();
  for (const flow of flows) {
    for (const action of flow.actions) {
      if (action.type !== 'conjunction') throw new Error(`${action.type} beside a conjunction`);
      const entry = clauses.get(action.id) ?? { seen: new Set<number>(), of: action.clauses };
      clauses.set(action.id, entry);
      if (entry.seen.has(action.clause))
        throw new Error(`two flows of clause ${action.clause} of conjunction ${action.id} match`);
      entry.seen.add(action.clause);
    }
  }
  return new Set([...clauses].filter(([, { seen, of }]) => seen.size === of).map(([id]) => id));
}

function matches(match: Match, fields: Fields): boolean {
  return Object.entries(match).every(([name, wanted]) => {
    if (wanted === undefined) return true;
    const field = name as FieldName;
    const have = fields[field] ?? 0n;
    const [value, mask] =
      typeof wanted === 'object' ? [BigInt(wanted[0]), BigInt(wanted[1])] : [BigInt(wanted), ones(field)];
    return (have & mask) === value;
  });
}

function ones(field: FieldName): bigint {
  return (1n << BigInt(FIELDS[field].bits)) - 1n;
}

function read(fields: Fields, { field, offset = 0, bits = FIELDS[field].bits }: FieldSlice): bigint {
  return ((fields[field] ?? 0n) >> BigInt(offset)) & ((1n << BigInt(bits)) - 1n);
}

function write(fields: Fields, { field, offset = 0, bits = FIELDS[field].bits }: FieldSlice, value: bigint): void {
  const mask = ((1n << BigInt(bits)) - 1n) << BigInt(offset);
  fields[field] = ((fields[field] ?? 0n) & ~mask) | ((value << BigInt(offset)) & mask);
}

function tupleOf(fields: Fields): Tuple {
  const ports = PROTOCOL_PORTS[Number(fields.ip_proto ?? 0) as keyof typeof PROTOCOL_PORTS];
  const [sport, dport] = ports === undefined ? [0n, 0n] : [fields[ports[0]] ?? 0n, fields[ports[1]] ?? 0n];
  return { proto: fields.ip_proto ?? 0n, src: fields.ipv4_src ?? 0n, dst: fields.ipv4_dst ?? 0n, sport, dport };
}

function reversed({ proto, src, dst, sport, dport }: Tuple): Tuple {
  return { proto, src: dst, dst: src, sport: dport, dport: sport };
}

function same(a: Tuple, b: Tuple): boolean {
  return a.proto === b.proto && a.src === b.src && a.dst === b.dst && a.sport === b.sport && a.dport === b.dport;
}

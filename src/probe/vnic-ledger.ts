import { DROP_REASONS, FIRST_RULE } from '../model/datapath.ts';
import type { Amount, VnicDirection, VnicLedgerEntry, VnicLedgerReport } from '../model/vnic-ledger.ts';
import { hourOf } from './ledger.ts';
import type { FlowClass } from './sources/flow-statistics/classes.ts';

export interface VnicLedgerConfig {
  readonly host: string;
  /** Start of this run, microseconds since the epoch. */
  readonly epoch: number;
  /** How long after a packet it may take until it is counted in rows, ms. */
  readonly delayMs: number;
}

/** What the port of a vNIC has counted. */
export interface PortReading {
  readonly zone: number;
  readonly endpoint: string;
  readonly vm: string;
  /** Time since the port was made, or the switch began anew, ms. */
  readonly ageMs: number;
  /** The device that counts, where it has a number. */
  readonly ifindex?: number;
  /** What the vNIC sent (the port's rx) and got (its tx). */
  readonly out: Amount;
  readonly in: Amount;
}

/** Taken over by the next run: what passes in between is in the counters of ports, and may be in its rows. */
export interface SavedVnic extends PortReading {
  /** What was told of it, and may be settled by the next run. */
  readonly open: Readonly<Record<VnicDirection, { readonly inFlight: Amount; readonly remainder: Amount }>>;
}

export interface Moment {
  /** Milliseconds of a clock that only goes forward. */
  readonly at: number;
  /** The same, microseconds since the epoch. */
  readonly time: number;
}

type Sums = Map<VnicLedgerEntry['term'], Amount>;
interface Vnic {
  reading: PortReading | undefined;
  /** Since this run began; `port` begins with what the run before left open. */
  readonly sums: Sums;
  /** What ports had counted, oldest first: the newest that is old enough, and all that are not yet. */
  past: { readonly at: number; readonly out: Amount; readonly in: Amount }[];
  /** What rows and terms came to before the ports were asked. */
  before: { readonly out: Amount; readonly in: Amount };
  /** Sums at the end of the hour before, and at the newest reading. */
  base: Sums;
  told: Sums;
  seenAt: number;
}

const DIRECTIONS = ['out', 'in'] as const satisfies readonly VnicDirection[];
const NOTHING: Amount = { packets: 0, octets: 0 };
const plus = (a: Amount, b: Amount): Amount => ({ packets: a.packets + b.packets, octets: a.octets + b.octets });
const minus = (a: Amount, b: Amount): Amount => ({ packets: a.packets - b.packets, octets: a.octets - b.octets });
const atLeast = (a: Amount): Amount => ({ packets: Math.max(0, a.packets), octets: Math.max(0, a.octets) });
/** The hour before, too: its last word may have been lost with a run. */
const HOURS_TOLD = 2;
const KEEP_MS = 600_000;
const MOST_LINES = 1000;

/** These end before the switch commits a connection; a rule may also end packets of one that it had let begin, which conntrack counts nevertheless. */
const REFUSED = new Set<number>(
  (['POLICY_DENY', 'DEFAULT_DENY', 'PORT_SECURITY', 'UNSUPPORTED', 'CT_INVALID', 'UNBOUND'] as const).map(
    (reason) => DROP_REASONS[reason].number,
  ),
);

const isRefusal = (point: number): boolean => point >= FIRST_RULE || REFUSED.has(point);

/** Whether a port goes on counting from where it was. A device does over a restart of the switch, at which the age of its port begins anew; what has no device is known by that age. */
function isSameCounter(known: PortReading, reading: PortReading): boolean {
  const isSamePort =
    known.ifindex === undefined || reading.ifindex === undefined
      ? reading.ageMs >= known.ageMs
      : reading.ifindex === known.ifindex;
  return (
    isSamePort &&
    known.endpoint === reading.endpoint &&
    DIRECTIONS.every((direction) => reading[direction].packets >= known[direction].packets)
  );
}

/**
 * Compares what ports of vNICs count with what is in rows. Pure, but for its own memory.
 *
 * Rows come later than packets, so a difference is proven only one way at a time: what a port had counted `delayMs` ago and rows lack now is missing; what rows
 * had before a port was asked, and the port lacks, was counted twice. The rest is in flight, and comes to nothing when traffic rests.
 */
export function createVnicLedger(config: VnicLedgerConfig) {
  const vnics = new Map<number, Vnic>();
  const hours = new Map<string, VnicLedgerEntry>();
  /** Those that are news. */
  const unsaid = new Map<string, VnicLedgerEntry>();
  let hour = 0;
  let lostUpcalls = 0;
  let lostBase = 0;

  function obtain(zone: number): Vnic {
    let found = vnics.get(zone);
    if (found === undefined) {
      const before = { out: NOTHING, in: NOTHING };
      found = { reading: undefined, sums: new Map(), past: [], before, base: new Map(), told: new Map(), seenAt: 0 };
      vnics.set(zone, found);
    }
    return found;
  }

  function add(zone: number, term: VnicLedgerEntry['term'], more: Amount): void {
    if (more.packets === 0 && more.octets === 0) return;
    const { sums } = obtain(zone);
    sums.set(term, plus(sums.get(term) ?? NOTHING, more));
  }

  /** All that explains what the port counts in a direction. */
  function explained({ sums }: Vnic, direction: VnicDirection): Amount {
    let sum = NOTHING;
    for (const [term, amount] of sums)
      if (term.startsWith(`${direction} `) && term !== `${direction} port`) sum = plus(sum, amount);
    return sum;
  }

  function settle(vnic: Vnic, now: Moment): Sums {
    const told: Sums = new Map(vnic.sums);
    const then = vnic.past.findLast(({ at }) => at <= now.at - config.delayMs);
    vnic.past = vnic.past.filter((one) => one === then || one.at > now.at - config.delayMs);
    for (const direction of DIRECTIONS) {
      const port = vnic.sums.get(`${direction} port`) ?? NOTHING;
      const all = explained(vnic, direction);
      const missing = then === undefined ? NOTHING : atLeast(minus(then[direction], all));
      const remainder = minus(missing, atLeast(minus(vnic.before[direction], port)));
      told.set(`${direction} remainder`, remainder);
      told.set(`${direction} in flight`, minus(minus(port, all), remainder));
    }
    return told;
  }

  function keep(entry: VnicLedgerEntry): void {
    const key = `${entry.hour} ${entry.endpoint} ${entry.term}`;
    const known = hours.get(key);
    if (known?.packets === entry.packets && known.octets === entry.octets) return;
    hours.set(key, entry);
    unsaid.set(key, entry);
  }

  return {
    /** What a row carries that was made for a vNIC. */
    counted(zone: number, countedBy: string, tx: Amount, rx: Amount, drop: Amount): void {
      add(zone, `out rows ${countedBy}`, tx);
      add(zone, `in rows ${countedBy}`, rx);
      add(zone, 'dropped', drop);
    },
    /**
     * Flows have counted so much more.
     * @param isConntrack conntrack counts what vNICs send and get, so that this is in no row
     */
    grew(of: FlowClass, packets: number, octets: number, isConntrack: boolean): void {
      if (!isConntrack) return;
      const more = { packets, octets };
      if (of.kind === 'arpSent') add(of.zone, 'out arp', more);
      else if (of.kind === 'arpDelivered') add(of.zone, 'in arp', more);
      else if (of.kind === 'answerDelivered') add(of.zone, 'in answers', more);
      else if (of.kind === 'drop' && of.zone !== 0 && of.stage === 'egress' && isRefusal(of.point))
        add(of.zone, 'out refused', more);
    },
    lostUpcalls(upcalls: number): void {
      lostUpcalls += upcalls;
    },
    /** Ports are about to be read. */
    begin(): void {
      for (const vnic of vnics.values()) vnic.before = { out: explained(vnic, 'out'), in: explained(vnic, 'in') };
    },
    /** What all ports have counted by now. */
    ports(readings: readonly PortReading[], now: Moment): void {
      const current = hourOf(now.time);
      if (current !== hour) {
        hour = current;
        lostBase = lostUpcalls;
        for (const vnic of vnics.values()) vnic.base = vnic.told;
        for (const [key, entry] of hours) if (entry.hour <= hour - HOURS_TOLD * 3600) hours.delete(key);
      }
      for (const reading of readings) {
        const vnic = obtain(reading.zone);
        const known = vnic.reading;
        const last = known !== undefined && isSameCounter(known, reading) ? known : undefined;
        // The first look is what later ones are compared with: what rows had before it is of packets that the port had before it.
        if (known === undefined) {
          vnic.sums.clear();
          vnic.before = { out: NOTHING, in: NOTHING };
        }
        for (const direction of DIRECTIONS) {
          const before = known === undefined ? reading[direction] : (last?.[direction] ?? NOTHING);
          add(reading.zone, `${direction} port`, minus(reading[direction], before));
        }
        vnic.reading = reading;
        vnic.seenAt = now.at;
        const port = (direction: VnicDirection): Amount => vnic.sums.get(`${direction} port`) ?? NOTHING;
        vnic.past.push({ at: now.at, out: port('out'), in: port('in') });
        vnic.told = settle(vnic, now);
        for (const [term, amount] of vnic.told) {
          const { packets, octets } = minus(amount, vnic.base.get(term) ?? NOTHING);
          const place = { epoch: config.epoch, hour, endpoint: reading.endpoint, vm: reading.vm };
          if (packets !== 0 || octets !== 0 || hours.has(`${hour} ${reading.endpoint} ${term}`))
            keep({ ...place, term, packets, octets });
        }
      }
      const lost = lostUpcalls - lostBase;
      if (lost > 0)
        keep({ epoch: config.epoch, hour, endpoint: '', vm: '', term: 'lost upcalls', packets: lost, octets: 0 });
      for (const [zone, { seenAt }] of vnics) if (seenAt !== 0 && now.at - seenAt > KEEP_MS) vnics.delete(zone);
    },
    /** What is news, in documents that stay far below the largest message of a bus. @param at microseconds since the epoch */
    report(at: number): VnicLedgerReport[] {
      const lines = [...unsaid.values()];
      unsaid.clear();
      const reports: VnicLedgerReport[] = [];
      for (let from = 0; from < lines.length; from += MOST_LINES)
        reports.push({ kind: 'vnic-ledger', at, host: config.host, lines: lines.slice(from, from + MOST_LINES) });
      return reports;
    },
    /** A report was not kept: what it said is to be said again. */
    failed({ lines }: VnicLedgerReport): void {
      for (const { hour: of, endpoint, term } of lines) {
        const key = `${of} ${endpoint} ${term}`;
        const entry = hours.get(key);
        if (entry !== undefined) unsaid.set(key, entry);
      }
    },
    save: (): readonly SavedVnic[] =>
      [...vnics.values()].flatMap((vnic) => {
        if (vnic.reading === undefined) return [];
        const open = (direction: VnicDirection) => ({
          inFlight: vnic.told.get(`${direction} in flight`) ?? NOTHING,
          remainder: vnic.told.get(`${direction} remainder`) ?? NOTHING,
        });
        return [{ ...vnic.reading, open: { out: open('out'), in: open('in') } }];
      }),
    resume(saved: readonly SavedVnic[]): void {
      for (const { open, ...reading } of saved) {
        const vnic = obtain(reading.zone);
        vnic.reading = reading;
        for (const direction of DIRECTIONS) {
          const { inFlight, remainder } = open[direction];
          const port = plus(inFlight, remainder);
          vnic.sums.set(`${direction} port`, port);
          // The run before has told of it.
          vnic.told.set(`${direction} port`, port);
          vnic.told.set(`${direction} in flight`, inFlight);
          vnic.told.set(`${direction} remainder`, remainder);
        }
        vnic.base = vnic.told;
      }
    },
  };
}

export type VnicLedger = ReturnType<typeof createVnicLedger>;

/**
 * The ledger of vNICs: for each vNIC and hour, what its port counted = what is in rows + named terms + in flight, and what is left over is the remainder. Ports are counted by
 * the kernel or the datapath's driver, rows by the probe: neither knows of the other.
 */

/** Seen from the guest: what its vNIC sent, and what it got. */
export const VNIC_DIRECTIONS = ['out', 'in'] as const;
export type VnicDirection = (typeof VNIC_DIRECTIONS)[number];

/** What stands in a line. `rows` come by who counted them: `rows ipfix`, `rows conntrack`. */
export const VNIC_TERMS = {
  port: 'the counters of the port',
  arp: 'ARP, which conntrack does not count',
  answers: "the pipeline's own answers, which conntrack does not count",
  refused: 'dropped before conntrack had a connection of it: by a rule, or as spoofed, invalid or not carried',
  'in flight': 'counted by the port, and not yet due in rows',
  remainder: 'what is in none of these: above 0 it is missing, below 0 it was counted twice',
} as const;
type VnicTerm = keyof typeof VNIC_TERMS | `rows ${string}`;

/** One value of one hour of a run, the newest that its agent has said. */
export interface VnicLedgerEntry {
  /** Run of the agent: its start, microseconds since the epoch. */
  readonly epoch: number;
  /** Start of the hour, seconds since the epoch. */
  readonly hour: number;
  /** iface-id of the vNIC; '' for the whole host. */
  readonly endpoint: string;
  readonly vm: string;
  /** Direction and term, as `out port`; `dropped` and `lost upcalls` have no direction, and add up with nothing. */
  readonly term: `${VnicDirection} ${VnicTerm}` | 'dropped' | 'lost upcalls';
  readonly packets: number;
  /** Ethernet header included. */
  readonly octets: number;
}

/** What an agent puts on `sonde.events`. Of lines that come again, or in another order, the one that was said last counts. */
export interface VnicLedgerReport {
  readonly kind: 'vnic-ledger';
  /** Microseconds since the epoch. */
  readonly at: number;
  readonly host: string;
  readonly lines: readonly VnicLedgerEntry[];
}

/** A line as it is stored: the newest of each run. */
export type StoredVnicEntry = Omit<VnicLedgerEntry, 'term'> & { readonly host: string; readonly term: string };

export interface Amount {
  readonly packets: number;
  readonly octets: number;
}

export interface VnicLedgerLine {
  readonly host: string;
  /** Start of the hour, ISO 8601. */
  readonly hour: string;
  readonly endpoint: string;
  readonly vm: string;
  readonly direction: VnicDirection;
  readonly port: Amount;
  readonly rows: Amount;
  /** Packets from or to the vNIC that were dropped, in both directions: beside the sum. */
  readonly dropped: Amount;
  /** Those that are not 0: rows by who counted them, ARP, answers, refusals. */
  readonly terms: readonly (Amount & { readonly term: string })[];
  readonly in_flight: Amount;
  readonly remainder: Amount;
  /** Packets of the remainder, either way, of 100 of the port's; null where the port counted none and there is a remainder. */
  readonly remainder_percent: number | null;
  /** Upcalls that the host lost in that hour, whosever they were. */
  readonly lost_upcalls: number;
}

/** A remainder of more than so much of a port's packets is a fault, percent. */
export const MOST_REMAINDER_PERCENT = 0.1;

const NOTHING: Amount = { packets: 0, octets: 0 };
const plus = (a: Amount, b: Amount): Amount => ({ packets: a.packets + b.packets, octets: a.octets + b.octets });

/** Lines by hour, host, vNIC and direction, the newest hour first. Runs of an agent add up. Pure. */
export function assembleVnicLedger(entries: readonly StoredVnicEntry[]): VnicLedgerLine[] {
  const byPlace = Map.groupBy(entries, ({ host, hour, endpoint }) => JSON.stringify([hour, host, endpoint]));
  const lost = new Map<string, number>();
  for (const { host, hour, term, packets } of entries)
    if (term === 'lost upcalls') lost.set(`${hour} ${host}`, (lost.get(`${hour} ${host}`) ?? 0) + packets);
  const lines: VnicLedgerLine[] = [];
  for (const all of byPlace.values()) {
    const [{ host, hour, endpoint } = { host: '', hour: 0, endpoint: '' }] = all;
    if (endpoint === '') continue;
    const sums = new Map<string, Amount>();
    for (const entry of all) sums.set(entry.term, plus(sums.get(entry.term) ?? NOTHING, entry));
    const vm = all.findLast((entry) => entry.vm !== '')?.vm ?? '';
    for (const direction of VNIC_DIRECTIONS) {
      const own = [...sums].flatMap(([term, sum]) =>
        term.startsWith(`${direction} `) ? [{ term: term.slice(direction.length + 1), ...sum }] : [],
      );
      const of = (name: string): Amount => {
        const { packets, octets } = own.find(({ term }) => term === name) ?? NOTHING;
        return { packets, octets };
      };
      const [port, remainder] = [of('port'), of('remainder')];
      const share = (Math.abs(remainder.packets) / port.packets) * 100;
      lines.push({
        ...{ host, endpoint, vm, direction, port, remainder },
        hour: new Date(hour * 1000).toISOString(),
        rows: own.filter(({ term }) => term.startsWith('rows ')).reduce<Amount>(plus, NOTHING),
        dropped: sums.get('dropped') ?? NOTHING,
        terms: own.filter(
          ({ term, packets, octets }) =>
            !['port', 'in flight', 'remainder'].includes(term) && (packets !== 0 || octets !== 0),
        ),
        in_flight: of('in flight'),
        remainder_percent: remainder.packets === 0 ? 0 : port.packets === 0 ? null : share,
        lost_upcalls: lost.get(`${hour} ${host}`) ?? 0,
      });
    }
  }
  const order = ({ host, vm, endpoint, direction }: VnicLedgerLine): string =>
    `${host} ${vm} ${endpoint} ${direction === 'out' ? 0 : 1}`;
  return lines.sort((a, b) => (a.hour === b.hour ? (order(a) < order(b) ? -1 : 1) : a.hour < b.hour ? 1 : -1));
}

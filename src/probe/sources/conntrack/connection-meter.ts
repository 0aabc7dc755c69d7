import type { FlowRow } from '../../../model/flow.ts';
import type { ConntrackRecord } from '../../../wire/netlink/conntrack-record.ts';
import { blankRow } from '../../flows/blank-row.ts';
import type { Tuple } from '../../flows/connection-table.ts';
import type { KnownConnection } from '../../flows/join.ts';
import { createRowNames, type RowNamesDeps } from '../../flows/row-names.ts';
import type { EmitRow } from '../../flows/row-source.ts';
import { type Checkpoint, encodeCheckpoint, isTold } from './checkpoint.ts';
import { CutConnections } from './cut-connections.ts';
import { describe, isOurs, ruleOf } from './describe.ts';
import { endReasonOf, STATUS } from './end-reason.ts';
import { createEntryRows, hasMoved, movementOf } from './entry-rows.ts';
import { type Counters, copyCounters, createEntry, type Entry, EntryTable } from './entry-table.ts';
import { createFoldedRows } from './folded-rows.ts';
import { RecentlyGone } from './recently-gone.ts';
import { TupleIndex } from './tuple-index.ts';

export interface MeterConfig {
  readonly host: string;
  /** Start of this run, microseconds since the epoch. */
  readonly epoch: number;
  /** Underlay address of this host. */
  readonly encapAddress: number;
  /** Marks are somebody else's (OVN writes all of their bits): sides go by addresses, and no rule is known. Default false. */
  readonly ignoresMarks?: boolean;
  /** How long the end of an entry that no look meets any more is waited for, microseconds; default 60 s. */
  readonly graceUs?: number;
  /** Most living entries whose counters are remembered; default 200,000. Those beyond come into rows when they end. */
  readonly most?: number;
  /** Of one zone; default 50,000. */
  readonly mostOfOne?: number;
  /** Most ended entries that wait for their row; those beyond share one a vNIC. Default 50,000. */
  readonly mostEnded?: number;
}

export interface MeterDeps extends RowNamesDeps {
  /** Share of the kernel's table that is in use, as of late; default 0. */
  readonly pressure?: () => number;
}

const GRACE_US = 60_000_000;
const MOST = 200_000;
const MOST_OF_ONE = 50_000;
const MOST_ENDED = 50_000;
const NOTHING: Counters = { originalPackets: 0, originalOctets: 0, replyPackets: 0, replyOctets: 0 };

/**
 * From entries of the kernel's connection table to flow rows. Looks (dumps) tell what lasting connections moved, ends (DESTROY events) have the last counts,
 * so that a connection between two looks is a row as well. What a row has told of is subtracted from what comes later: over any history the rows of a
 * connection add up to its last counters that anybody read.
 *
 * Looks and ends come by two ways in no order. Zone, id and start name an entry; one that ended is remembered over two looks, so that a look that began before
 * does not bring it back; one that a look misses is waited for, and counted as lost when its end does not come.
 */
export function createConnectionMeter(config: MeterConfig, deps: MeterDeps) {
  const { graceUs = GRACE_US, most = MOST, mostOfOne = MOST_OF_ONE, mostEnded = MOST_ENDED } = config;
  const { ignoresMarks = false } = config;
  const { pressure = () => 0 } = deps;
  const table = new EntryTable({ most, mostOfOne });
  const tuples = new TupleIndex();
  const gone = new RecentlyGone();
  const cut = new CutConnections();
  const names = createRowNames(config.encapAddress, deps);
  const blank = (): FlowRow => ({ ...blankRow(config.host, config.epoch), counted_by: 'conntrack' });
  const rows = createEntryRows(blank(), names, deps);
  const folded = createFoldedRows(blank(), names);
  let moved: Entry[] = [];
  let ended: Entry[] = [];
  let look = 0;
  /** When what is over was last forgotten. */
  let turnedAt = 0;
  let isLooking = false;
  let hasLooked = false;
  /** What was there before this run is in rows as far as the checkpoint says. Without one nobody knows, and nothing is told twice. */
  let isRestored = false;
  let isFileOld = false;
  const counts = {
    /** Records of looks, and of ends. */
    looked: 0,
    ended: 0,
    rows: 0,
    packets: 0,
    unattributed: 0,
    /** Records of entries of zones that are nobody's here, and of ends that were told already. */
    foreign: 0,
    repeated: 0,
    /** Ended entries in rows without addresses. */
    folded: 0,
    /** Entries whose counters fell: somebody set them to zero. */
    reset: 0,
    /**
     * Connections of which something was lost, by reason. evicted_unread: no look met them any more, and nobody told of their end; ended_away: likewise, while
     * no agent was there; before_start: they began before this run and no checkpoint says what was told of them; no_counters: they began before the kernel
     * was told to count.
     */
    lost: { evicted_unread: 0, ended_away: 0, before_start: 0, no_counters: 0 },
    /** Of the last look: entries beyond the limits, and entries that the kernel does not count. */
    unwatched: 0,
    uncounted: 0,
  };
  const current = { unwatched: 0, uncounted: 0 };

  /** Zones that are nobody's: the tunnel's own packets (zone 0), and what others track. */
  function isForeign({ zone, mark }: ConntrackRecord): boolean {
    if (zone === 0) return true;
    return (ignoresMarks || !isOurs(mark)) && deps.directory().portAt(zone) === undefined;
  }

  function begin(record: ConntrackRecord, now: number): Entry {
    const entry = createEntry(record.zone, record.id, record.start);
    if (record.start === 0) {
      entry.opened = now;
      entry.toldAt = now;
    }
    return entry;
  }

  /** Began before this run, and what was told of it is not known. */
  const isBefore = ({ start }: ConntrackRecord): boolean =>
    !isRestored && (start === 0 ? !hasLooked : start < config.epoch);

  function forget(entry: Entry): void {
    table.remove(entry);
    tuples.remove(entry);
  }

  /** Takes in what a record says of an entry. */
  function read(entry: Entry, record: ConntrackRecord): void {
    const mark = ignoresMarks ? 0 : record.mark;
    if (!entry.isDescribed) {
      describe(entry, record, mark, deps.directory().endpointAt(record.zone));
      const { side = entry.side } = cut.find(entry) ?? {};
      if (entry.side !== 0 && side !== entry.side) Object.assign(entry, { side, isTurned: true });
    } else if (mark !== 0) entry.rule = ruleOf(mark);
    if (record.hasCounters) {
      if (isLess(record, entry.told)) {
        counts.reset++;
        copyCounters(entry.told, NOTHING);
      }
      copyCounters(entry, record);
    }
    entry.tcpState = record.tcpState;
  }

  /** An entry in a look. @param now microseconds since the epoch */
  function take(record: ConntrackRecord, now: number): void {
    counts.looked++;
    let entry = table.find(record.zone, record.id, record.start);
    if (entry === undefined) {
      // Of a dying one, or one that has ended, the end tells.
      if ((record.status & STATUS.dying) !== 0 || gone.has(record.zone, record.id, record.start)) return;
      if (isForeign(record)) {
        counts.foreign++;
        return;
      }
      if (!record.hasCounters) current.uncounted++;
      else if (!table.hasRoom(record.zone)) current.unwatched++;
      else entry = begin(record, now);
      if (entry === undefined) return;
      table.add(entry);
      if (isBefore(record)) {
        copyCounters(entry.told, record);
        entry.toldAt = now;
        isFileOld = true;
        counts.lost.before_start++;
      }
    }
    entry.look = look;
    entry.missedAt = 0;
    read(entry, record);
    if (!entry.isIndexed) tuples.add(entry);
    entry.deadline = now + record.timeout * 1e6;
    if (hasMoved(entry)) {
      entry.countedAt = now;
      if (!entry.isQueued) {
        entry.isQueued = true;
        moved.push(entry);
      }
    } else if (!entry.isQueued) entry.toldAt = now;
  }

  /** The end of an entry: a DESTROY event. @param now microseconds since the epoch */
  function end(record: ConntrackRecord, now: number): void {
    const { zone, id, start, status, protocol, tcpState } = record;
    counts.ended++;
    let entry = table.find(zone, id, start);
    if (entry === undefined) {
      // Where the kernel keeps no times, a new entry with an old id looks the same.
      if (start !== 0 && gone.has(zone, id, start)) {
        counts.repeated++;
        return;
      }
      if (isForeign(record)) {
        counts.foreign++;
        return;
      }
      gone.add(zone, id, start);
      if (!record.hasCounters) {
        counts.lost.no_counters++;
        return;
      }
      if (isBefore(record)) {
        counts.lost.before_start++;
        return;
      }
      entry = begin(record, now);
    } else gone.add(zone, id, start);
    const before = { packets: entry.originalPackets + entry.replyPackets, at: entry.look === 0 ? 0 : entry.countedAt };
    read(entry, record);
    const stop = record.stop === 0 ? now : record.stop;
    const isSilent = entry.deadline > 0 && entry.originalPackets + entry.replyPackets === before.packets;
    forget(entry);
    entry.isEnded = true;
    entry.countedAt = stop;
    cut.ended(entry);
    if (!hasMoved(entry)) {
      isFileOld ||= isTold(entry);
      return;
    }
    entry.endReason = endReasonOf({
      protocol,
      tcpState,
      status,
      stop,
      silentSince: Math.max(before.at, entry.toldAt),
      deadline: isSilent ? entry.deadline : 0,
      pressure,
    });
    if (ended.length < mostEnded) ended.push(entry);
    else {
      counts.folded++;
      folded.add(movementOf(entry));
    }
  }

  /** Whom the look did not meet, although it was whole. */
  function missing(now: number): void {
    for (const entry of table) {
      if (entry.look === look) continue;
      if (entry.missedAt === 0) entry.missedAt = now;
      if (now - entry.missedAt < graceUs) continue;
      forget(entry);
      gone.add(entry.zone, entry.id, entry.start);
      counts.lost[entry.look === 0 ? 'ended_away' : 'evicted_unread']++;
      isFileOld = true;
    }
  }

  /** Emits one row, where there is something to tell. */
  function tell(entry: Entry, now: number, emit: EmitRow): void {
    if (!hasMoved(entry)) return;
    // Of one that ended, the file still says that it lives.
    isFileOld ||= !entry.isEnded || isTold(entry);
    const { row, isAttributed } = rows.make(entry, now);
    if (!isAttributed) counts.unattributed++;
    copyCounters(entry.told, entry);
    entry.toldAt = entry.countedAt;
    counts.rows++;
    counts.packets += (row.tx_packets as number) + (row.rx_packets as number);
    emit(row, entry.zone);
  }

  return {
    counts: counts as Readonly<typeof counts>,
    /** Living entries whose counters are remembered. */
    get connections(): number {
      return table.size;
    },
    /** What an earlier run had told, before anything else comes. */
    restore({ at, entries }: Checkpoint): void {
      isRestored = true;
      for (const { zone, id, start, told } of entries) {
        const entry = createEntry(zone, id, start);
        if (start === 0) entry.opened = at;
        copyCounters(entry, told);
        copyCounters(entry.told, told);
        entry.toldAt = at;
        entry.countedAt = at;
        table.add(entry);
      }
    },
    /** Before the kernel is asked for its table. */
    beginLook(): void {
      look++;
      isLooking = true;
      current.unwatched = 0;
      current.uncounted = 0;
    },
    take,
    /** @param isWhole every entry was in it that was there all the time */
    endLook(now: number, isWhole: boolean): void {
      isLooking = false;
      if (!isWhole) {
        // Looks that fail, one after the other, must not make the memory of ends grow for ever.
        if (now - turnedAt > graceUs) {
          gone.turn();
          turnedAt = now;
        }
        return;
      }
      // From now on the next run can know.
      if (!hasLooked) isFileOld = true;
      hasLooked = true;
      Object.assign(counts, current);
      missing(now);
      gone.turn();
      turnedAt = now;
    },
    end,
    /** Rows of connections that moved wait for the end of the look, so that there is one checkpoint a look. */
    flush(now: number, emit: EmitRow, everything = false, atMost = Number.POSITIVE_INFINITY): number {
      const before = counts.rows;
      let at = 0;
      for (; at < ended.length && counts.rows - before < atMost; at++) tell(ended[at] as Entry, now, emit);
      ended = at === ended.length ? [] : ended.slice(at);
      if (counts.rows - before < atMost) counts.rows += folded.flush(now, emit);
      if (isLooking && !everything) return counts.rows - before;
      at = 0;
      for (; at < moved.length && counts.rows - before < atMost; at++) {
        const entry = moved[at] as Entry;
        entry.isQueued = false;
        // One that has ended has told all of it, or is in a row with others.
        if (!entry.isEnded) tell(entry, now, emit);
      }
      moved = at === moved.length ? [] : moved.slice(at);
      return counts.rows - before;
    },
    /** The connection of those addresses and ports that lives, or whose entry was taken away. */
    find: (tuple: Tuple): KnownConnection | undefined => tuples.find(tuple) ?? cut.find(tuple),
    /** What is told of living entries; undefined while there is nothing new in it. */
    checkpoint(now: number, always = false): Uint8Array | undefined {
      // Of what was there before, part is not known yet: the next run would take it for new.
      if (!isRestored && !hasLooked) return undefined;
      if (!isFileOld && !always) return undefined;
      isFileOld = false;
      return encodeCheckpoint(table, table.size, now);
    },
  };
}

export type ConnectionMeter = ReturnType<typeof createConnectionMeter>;

function isLess(record: Counters, told: Counters): boolean {
  return (
    record.originalPackets < told.originalPackets ||
    record.originalOctets < told.originalOctets ||
    record.replyPackets < told.replyPackets ||
    record.replyOctets < told.replyOctets
  );
}

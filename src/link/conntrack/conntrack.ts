import type { Registry } from 'prom-client';
import type { SondeError } from '../../model/errors.ts';
import { createMetrics } from '../../telemetry/metrics.ts';
import { createConntrackDecoder } from '../../wire/netlink/conntrack-decoder.ts';
import { encodeConntrack } from '../../wire/netlink/conntrack-encoder.ts';
import type { ConntrackRecord } from '../../wire/netlink/conntrack-record.ts';
import { FLAGS } from '../../wire/netlink/constants.ts';
import { DUMP_SOCKET, type DumpFilter, type DumpResult, dumpTable } from './dump.ts';
import { type ConntrackLoss, createEventReader, type EventReader } from './event-reader.ts';
import { type ConntrackCounts, type ConntrackEventKind, METRICS, showCounts } from './metrics.ts';
import { type NetlinkSocket, openNetlinkSocket, refusal } from './netlink-socket.ts';
import { applySettings, readTableCounts } from './settings.ts';

export interface ConntrackConfig {
  /** Events that are wanted. Default: destroy alone, the only ones with counters. */
  readonly events?: readonly ConntrackEventKind[];
  /** Zones whose events and entries are wanted; asked before the rest of a message is read. Default: all. */
  readonly zoneWanted?: (zone: number) => boolean;
  /**
   * Asked of the kernel for events that have not been read; it grants twice as much. Default 64 MiB, of which nothing is used while events are read: an event
   * takes some 1,300 octets of it.
   */
  readonly receiveBufferOctets?: number;
  /** Milliseconds between two looks for events. Default 50. */
  readonly pollMs?: number;
  /** Milliseconds between two looks whether the kernel's settings are as they have to be: others may change them. Default 60,000. */
  readonly settingsMs?: number;
  /** For one dump, milliseconds. Default 30,000. */
  readonly dumpMs?: number;
}

export interface ConntrackDeps {
  readonly metrics: Registry;
  /** The record is valid until it returns. */
  readonly onEvent: (record: ConntrackRecord) => void;
  /** Events are lost: what ended in that time is known by its absence from the next dump. Called when what came before has been handed over. */
  readonly onLost: (loss: ConntrackLoss) => void;
  /** What keeps a setting of the kernel from being as it has to be; undefined: nothing. Called at each look. */
  readonly onSetting: (setting: string, trouble: SondeError | undefined) => void;
  /** What broke; the component goes on with the rest. */
  readonly onTrouble: (error: SondeError) => void;
  /** Microseconds since the epoch. Default: this machine's clock. */
  readonly now?: () => number;
  /** Default: sockets of the kernel. */
  readonly open?: typeof openNetlinkSocket;
  /** Where the kernel's settings are. Default /proc. */
  readonly proc?: string;
}

/** Bits of NF_NETLINK_CONNTRACK_NEW, _UPDATE, _DESTROY: include/uapi/linux/netfilter/nfnetlink_compat.h. */
const GROUPS: Readonly<Record<ConntrackEventKind, number>> = { new: 1, update: 2, destroy: 4 };
/** Events of 300 octets or so; with the name of a helper and a security context some more. */
const EVENT_SOCKET = { datagrams: 128, datagramOctets: 2048 } as const;
const RECEIVE_BUFFER = 64 * 1024 * 1024;
/** A socket that failed is opened again after this time. */
const REOPEN_MS = 1000;

/**
 * The kernel's connection table, of the network namespace in which this process runs: its entries by a dump, and events. Inert until `start`.
 *
 * Events are not taken in "reliable" mode (NETLINK_BROADCAST_ERROR), in which the kernel keeps what it cannot tell in the table: a process that stands still
 * would fill it, and no watchdog in that process is awake then. Here a reader that stands still can lose events but never stop traffic. That it lost some is
 * known (ENOBUFS, and the kernel's count of drops), and told by `onLost`; a dump then shows what is left, so that at most the counts since the last dump are
 * gone, of connections that ended in between. The buffer makes this rare: `bench/cases/conntrack.ts` measures how many events it holds.
 */
export function createConntrack(config: ConntrackConfig, deps: ConntrackDeps) {
  const { events = ['destroy'], zoneWanted, pollMs = 50, settingsMs = 60_000, dumpMs = 30_000 } = config;
  const { open = openNetlinkSocket, now = () => Date.now() * 1000 } = deps;
  const wants = { ...(zoneWanted && { zone: zoneWanted }) };
  const metrics = createMetrics(deps.metrics, METRICS);
  const seen: Record<ConntrackRecord['kind'], number> = { entry: 0, new: 0, update: 0, destroy: 0 };
  const counts = { overruns: 0, lostEvents: 0, foreign: 0, malformed: 0 };

  let isRunning = false;
  let eventSocket: NetlinkSocket | undefined;
  let reader: EventReader | undefined;
  let dumpSocket: NetlinkSocket | undefined;
  let reopening: NodeJS.Timeout | undefined;
  let settling: NodeJS.Timeout | undefined;
  /** Since when there is no socket, where one failed. */
  let deafSince: number | undefined;
  /** The dump that is under way, or was. */
  let lastDump: Promise<unknown> = Promise.resolve();

  function settle(): void {
    for (const [setting, trouble] of applySettings(deps.proc)) deps.onSetting(setting, trouble);
  }

  function count({ foreign, malformed }: { foreign: number; malformed: number }): void {
    counts.foreign += foreign;
    counts.malformed += malformed;
  }

  /** @throws SondeError CONNTRACK_NOT_PERMITTED, CONNTRACK_MODULE_MISSING, CONNTRACK_SOCKET_REFUSED */
  async function listen(): Promise<void> {
    let groups = 0;
    for (const kind of events) groups |= GROUPS[kind];
    const receiveBufferOctets = config.receiveBufferOctets ?? RECEIVE_BUFFER;
    const socket = await open({ groups, receiveBufferOctets, ...EVENT_SOCKET });
    // It may have been stopped meanwhile.
    if (!isRunning) {
      socket.close();
      return;
    }
    eventSocket = socket;
    reader = createEventReader(
      socket,
      { pollMs, wants },
      {
        now,
        onEvent(record) {
          seen[record.kind]++;
          deps.onEvent(record);
        },
        onLost(loss) {
          counts.overruns++;
          counts.lostEvents += loss.events;
          deps.onLost(loss);
        },
        onOutcome: count,
        onFailure: fail,
      },
    );
    reader.start();
  }

  function fail(error: SondeError, since?: number): void {
    deafSince ??= since ?? now();
    eventSocket?.close();
    eventSocket = reader = undefined;
    deps.onTrouble(error);
    if (isRunning) reopening = setTimeout(() => void listen().then(hearAgain, (next) => fail(next)), REOPEN_MS);
  }

  function hearAgain(): void {
    if (!isRunning) return;
    const since = deafSince ?? now();
    deafSince = undefined;
    counts.overruns++;
    // How many is not known.
    deps.onLost({ since, until: now(), events: 0 });
  }

  async function runDump(filter: DumpFilter, take: (record: ConntrackRecord) => void): Promise<DumpResult> {
    try {
      dumpSocket ??= await open(DUMP_SOCKET);
      const result = await dumpTable(dumpSocket, { filter, zone: zoneWanted, deadlineMs: dumpMs }, take);
      count(result);
      metrics.sonde_conntrack_dumps_total.inc({ outcome: result.interrupted ? 'interrupted' : 'complete' });
      return result;
    } catch (error) {
      metrics.sonde_conntrack_dumps_total.inc({ outcome: 'failed' });
      // What is still to come must not become part of the next.
      dumpSocket?.close();
      dumpSocket = undefined;
      throw error;
    }
  }

  const component = {
    /**
     * Sets what conntrack has to be told, now and whenever somebody else has set it otherwise, and listens.
     * @throws SondeError CONNTRACK_NOT_PERMITTED, CONNTRACK_MODULE_MISSING, CONNTRACK_SOCKET_REFUSED
     */
    async start(): Promise<void> {
      // First the question, as it makes the kernel load what it needs to answer.
      await askForStatistics(open);
      settle();
      isRunning = true;
      try {
        await listen();
      } catch (error) {
        isRunning = false;
        throw error;
      }
      if (isRunning) settling = setInterval(settle, settingsMs);
    },
    /** Hands over the events that have come, and closes the sockets. A dump that is under way ends first. */
    async stop(): Promise<void> {
      isRunning = false;
      clearTimeout(reopening);
      clearInterval(settling);
      reader?.stop();
      await lastDump;
      eventSocket?.close();
      dumpSocket?.close();
      eventSocket = dumpSocket = reader = undefined;
    },
    /**
     * Hands over every entry of the table that the filter and the zones let through; one dump at a time, each waits for the one before.
     * @throws SondeError CONNTRACK_DUMP_FAILED, CONNTRACK_NOT_PERMITTED, CONNTRACK_MODULE_MISSING, CONNTRACK_SOCKET_REFUSED
     */
    dump(filter: DumpFilter, take: (record: ConntrackRecord) => void): Promise<DumpResult> {
      const mine = lastDump.then(() => runDump(filter, take));
      lastDump = mine.catch(() => {});
      return mine;
    },
    /** Sums since `start`, and what the kernel says of its table at this moment. */
    counts(): ConntrackCounts {
      const { new: opened, update, destroy } = seen;
      return { ...counts, events: { new: opened, update, destroy }, table: readTableCounts(deps.proc) };
    },
    /** Room for events, octets as the kernel counts them; 0 while nothing listens. */
    get receiveBufferOctets(): number {
      return eventSocket?.receiveBufferOctets ?? 0;
    },
  };
  showCounts(metrics, component);
  return component;
}

export type Conntrack = ReturnType<typeof createConntrack>;

/** IPCTNL_MSG_CT_GET_STATS: answered within the call. */
const GET_STATISTICS = 0x105;

async function askForStatistics(open: typeof openNetlinkSocket): Promise<void> {
  const socket = await open({ groups: 0, datagrams: 1, datagramOctets: 4096 });
  try {
    socket.send(encodeConntrack({ type: GET_STATISTICS, flags: FLAGS.request, family: 0 }));
    const found = socket.receive();
    if (found < 0) throw refusal(-found, 'asking for its counts');
    const { errno } = createConntrackDecoder().decode(socket.view, socket.offsetOf(0), socket.lengthOf(0), () => {});
    if (errno !== 0) throw refusal(errno, 'asking for its counts');
  } finally {
    socket.close();
  }
}

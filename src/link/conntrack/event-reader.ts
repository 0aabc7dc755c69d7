import { constants } from 'node:os';
import type { SondeError } from '../../model/errors.ts';
import type { ConntrackOutcome, ConntrackWants } from '../../wire/netlink/conntrack-decoder.ts';
import { createConntrackDecoder } from '../../wire/netlink/conntrack-decoder.ts';
import type { ConntrackRecord } from '../../wire/netlink/conntrack-record.ts';
import { type NetlinkSocket, refusal } from './netlink-socket.ts';

/** Work between two turns of the event loop, milliseconds. */
const STRETCH_MS = 8;
/** The same for what has come when nobody wants more. */
const LAST_STRETCH_MS = 1000;

/** Events that the receive buffer had no room for. */
export interface ConntrackLoss {
  /** Microseconds since the epoch: the last time that nothing was waiting, so nothing before it is lost. */
  readonly since: number;
  /** Likewise: when all that had found room was read, so that from then on nothing is lost any more. */
  readonly until: number;
  /** How many, of all zones and wanted kinds; 0 where it is not known, since there was no socket. */
  readonly events: number;
}

export interface EventReaderDeps {
  /** Microseconds since the epoch. */
  readonly now: () => number;
  readonly onEvent: (record: ConntrackRecord) => void;
  readonly onLost: (loss: ConntrackLoss) => void;
  readonly onOutcome: (outcome: ConntrackOutcome) => void;
  /** The socket failed otherwise; nothing is read any more, and what came after `since` (microseconds since the epoch) may be lost. */
  readonly onFailure: (error: SondeError, since: number) => void;
}

/**
 * Fetches events from a socket by the clock: every `pollMs` all that have come, many a call, in stretches. Not when one is there, which would cost a turn of
 * the loop each; the receive buffer holds them meanwhile.
 */
export function createEventReader(
  socket: NetlinkSocket,
  { pollMs, wants }: { readonly pollMs: number; readonly wants: ConntrackWants },
  deps: EventReaderDeps,
) {
  const decoder = createConntrackDecoder(wants);
  let timer: NodeJS.Timeout | undefined;
  let immediate: NodeJS.Immediate | undefined;
  let lastEmpty = deps.now();
  let dropped = socket.dropped();
  let isLosing = false;

  function drain(): void {
    immediate = undefined;
    if (!read(performance.now() + STRETCH_MS)) immediate = setImmediate(drain);
  }

  /** Whether nothing is waiting any more, or nothing can be read. */
  function read(until: number): boolean {
    do {
      const count = socket.receive();
      if (count === 0) {
        caughtUp();
        return true;
      }
      // Told before what did find room. From here to an empty queue the kernel puts nothing into it, so this comes to an end.
      if (count === -constants.errno.ENOBUFS) isLosing = true;
      else if (count < 0) {
        stop();
        deps.onFailure(refusal(-count, 'reading events'), lastEmpty);
        return true;
      }
      for (let i = 0; i < count; i++)
        deps.onOutcome(decoder.decode(socket.view, socket.offsetOf(i), socket.lengthOf(i), deps.onEvent));
    } while (performance.now() < until);
    return false;
  }

  function caughtUp(): void {
    const since = lastEmpty;
    lastEmpty = deps.now();
    const total = socket.dropped();
    const events = total - dropped;
    dropped = total;
    if (!isLosing && events === 0) return;
    isLosing = false;
    deps.onLost({ since, until: lastEmpty, events });
  }

  function stop(): void {
    clearInterval(timer);
    clearImmediate(immediate);
    timer = immediate = undefined;
  }

  return {
    start(): void {
      timer = setInterval(() => {
        if (immediate === undefined) drain();
      }, pollMs);
    },
    /** Reads what has come until now, for a second at most. */
    stop(): void {
      const wasRunning = timer !== undefined;
      stop();
      if (wasRunning) read(performance.now() + LAST_STRETCH_MS);
    },
  };
}

export type EventReader = ReturnType<typeof createEventReader>;

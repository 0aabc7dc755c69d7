import { PROTOCOL } from '../../../wire/packet/headers.ts';

/** IPS_* bits of an entry's status: include/uapi/linux/netfilter/nf_conntrack_common.h. */
export const STATUS = { seenReply: 1 << 1, assured: 1 << 2, dying: 1 << 9 } as const;

/** enum tcp_conntrack of include/uapi/linux/netfilter/nf_conntrack_tcp.h: both ends have said FIN and had their time, or one said RST. */
const TIME_WAIT = 7;
const CLOSE = 8;
export const isClosed = (protocol: number, tcpState: number): boolean =>
  protocol === PROTOCOL.tcp && (tcpState === TIME_WAIT || tcpState === CLOSE);

/**
 * Seconds for which an entry has to be silent before it expires, by TCP's states from SYN_SENT (1) on: net/netfilter/nf_conntrack_proto_tcp.c, as they are
 * unless net.netfilter.nf_conntrack_tcp_timeout_* say otherwise. Established connections with unacknowledged data wait 300 s only.
 */
const TCP_SECONDS = [0, 120, 60, 300, 120, 60, 30, 120, 10, 120] as const;
const UDP_SECONDS = 30;
const ICMP_SECONDS = 30;

/** The least silence, in seconds, after which an entry may expire; 0: any. */
function leastSilence(protocol: number, tcpState: number): number {
  if (protocol === PROTOCOL.tcp) return TCP_SECONDS[tcpState] ?? 0;
  if (protocol === PROTOCOL.udp) return UDP_SECONDS;
  return protocol === PROTOCOL.icmp || protocol === PROTOCOL.icmpv6 ? ICMP_SECONDS : 0;
}

/** Deadlines come in whole seconds, and a look takes its time. */
const SLACK_US = 2_000_000;
/** Above this share of nf_conntrack_max the kernel makes room: its garbage collector from 95 % on, and any packet that finds the table full. */
const PRESSED = 0.9;

export interface EndOfEntry {
  readonly protocol: number;
  readonly tcpState: number;
  readonly status: number;
  /** Microseconds since the epoch at which the kernel ended it. */
  readonly stop: number;
  /** The latest time that is known to be no later than its last packet: it was opened, or looked at and moved since. */
  readonly silentSince: number;
  /** When it was to expire, by a look after which it did not move; 0: there was none. */
  readonly deadline: number;
  /** Share of the kernel's table that is in use; asked for only where it decides. */
  readonly pressure: () => number;
}

/**
 * Why an entry ended, which no message says: DESTROY has status, state and times, and no timeout. A closed TCP connection is `end`, however its entry went.
 * Of the others those that went before they can have expired were taken away: entries that were never assured (early_drop of
 * net/netfilter/nf_conntrack_core.c takes no others) while the table is nearly full, for want of room (`resources`); else by somebody (`forced`: a flush of the
 * zone, conntrack -D, a port that goes). The rest was silent for too long (`idle`). Where timeouts are shorter than Linux's own and no look met the entry, an
 * idle one passes for `forced`.
 */
export function endReasonOf({ protocol, tcpState, status, stop, silentSince, deadline, pressure }: EndOfEntry): string {
  if (isClosed(protocol, tcpState)) return 'end';
  const least = deadline > 0 ? deadline : silentSince + leastSilence(protocol, tcpState) * 1e6;
  if (stop >= least - SLACK_US) return 'idle';
  return (status & STATUS.assured) === 0 && pressure() >= PRESSED ? 'resources' : 'forced';
}

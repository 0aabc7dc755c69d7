import { PROTOCOL } from '../../../wire/packet/headers.ts';
import { isSameTuple, type Tuple, tupleHash } from '../../flows/connection-table.ts';
import type { KnownConnection } from '../../flows/join.ts';
import type { Entry } from './entry-table.ts';

/** TCP_CONNTRACK_ESTABLISHED of include/uapi/linux/netfilter/nf_conntrack_tcp.h. */
const ESTABLISHED = 3;
/** A flush of a busy host's table; those beyond are picked up as if nobody had known them. */
const MOST = 50_000;

/**
 * TCP connections whose entry went while they lasted: a flush, conntrack -D, want of room, a long silence. Whichever end speaks next makes the kernel begin an entry
 * in the middle, whose direction says nothing of who opened the connection; here it is still known. The same ports turned round are no new connection: its client
 * would have to call from the port that was served.
 */
export class CutConnections {
  /** By hash of the tuple; of two that share one the later. */
  readonly #cut = new Map<number, Tuple & KnownConnection>();

  /** An entry has ended: in the middle of its connection, or with it, and then whoever comes with these ports is another. */
  ended(entry: Entry): void {
    const { zone, ethertype, protocol, localAddress, peerAddress, localPort, peerPort, side, tcpState } = entry;
    if (protocol !== PROTOCOL.tcp) return;
    const isCut = tcpState === ESTABLISHED && side !== 0;
    if (!isCut && this.#cut.size === 0) return;
    const hash = tupleHash(entry);
    // The newest come last.
    this.#cut.delete(hash);
    if (!isCut) return;
    this.#cut.set(hash, { zone, ethertype, protocol, localAddress, peerAddress, localPort, peerPort, side, opened: 0 });
    for (const oldest of this.#cut.keys()) {
      if (this.#cut.size <= MOST) break;
      this.#cut.delete(oldest);
    }
  }

  /** A connection of that tuple that was cut: its side, and no more, since nobody saw what has become of it. */
  find(tuple: Tuple): KnownConnection | undefined {
    if (this.#cut.size === 0) return undefined;
    const found = this.#cut.get(tupleHash(tuple));
    return found !== undefined && isSameTuple(found, tuple) ? found : undefined;
  }
}

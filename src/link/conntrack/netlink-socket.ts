import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import { SondeError } from '../../model/errors.ts';
import { LITTLE_ENDIAN } from '../../wire/netlink/constants.ts';

/**
 * A socket of NETLINK_NETFILTER, of which Node has none: socket calls of libc through koffi, which ships prebuilt. It never blocks, and no thread waits for
 * it: what has arrived is fetched by `recvmmsg`, many datagrams a call, when its owner's timer says so. Measured per event, with all that Node does for it:
 * see `bench/cases/conntrack.ts`.
 */
export interface NetlinkSocket {
  /** @throws SondeError CONNTRACK_SOCKET_REFUSED */
  send(message: Uint8Array): void;
  /**
   * The same on a thread of the pool: the kernel begins to answer within the call, and for a dump it walks the table until a datagram is full, which with few
   * entries that fit is all of it (9 ms for 262,144 empty buckets).
   */
  sendAside(message: Uint8Array): Promise<void>;
  /** Fetches the datagrams that have arrived, as many as there is room for. Returns how many, or a negative number of errno; 0: none is there. */
  receive(): number;
  /** The same on a thread of the pool: each fetch of a dump has the kernel fill the next datagram. */
  receiveAside(): Promise<number>;
  /** What was fetched last; valid until the next fetch. */
  readonly view: DataView;
  /** Where a datagram begins in `view`. */
  offsetOf(datagram: number): number;
  lengthOf(datagram: number): number;
  /** Datagrams that the kernel could not put into the receive buffer, since the socket is there. */
  dropped(): number;
  /** Room for what has not been fetched, octets, as the kernel counts: with its own overhead. */
  readonly receiveBufferOctets: number;
  close(): void;
}

export interface NetlinkSocketConfig {
  /** Bits of NF_NETLINK_CONNTRACK_NEW, _UPDATE and _DESTROY; 0 to ask only. */
  readonly groups: number;
  /** Datagrams that one fetch takes at most, and octets of each. */
  readonly datagrams: number;
  readonly datagramOctets: number;
  /** Asked of the kernel, which grants twice as much and counts its overhead. Default: what the system has as its own. */
  readonly receiveBufferOctets?: number;
}

/** include/linux/socket.h, asm-generic/socket.h. */
const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const SOCK_NONBLOCK = 0o4000;
const NETLINK_NETFILTER = 12;
const SOL_SOCKET = 1;
const SO_RCVBUF = 8;
const SO_RCVBUFFORCE = 33;
const SO_MEMINFO = 55;
/** Of SO_MEMINFO's nine numbers: SK_MEMINFO_RCVBUF and SK_MEMINFO_DROPS. */
const MEMINFO_NUMBERS = 9;
const MEMINFO_RCVBUF = 1;
const MEMINFO_DROPS = 8;
const MSG_DONTWAIT = 0x40;

/** Octets of struct mmsghdr and iovec where pointers have eight, and where their fields lie. */
const MMSGHDR = { octets: 64, iov: 16, iovlen: 24, received: 56 } as const;
const IOVEC = { octets: 16, base: 0, length: 8 } as const;

/** Loaded when the first socket is wanted: only hosts whose connections the kernel tracks need it. */
async function loadLibrary() {
  const { default: koffi } = await import('koffi');
  const libc = koffi.load(null);
  return {
    errno: (): number => koffi.errno(),
    addressOf: (bytes: Uint8Array): bigint => koffi.address(bytes),
    socket: libc.func('int socket(int, int, int)'),
    bind: libc.func('int bind(int, void *, unsigned int)'),
    setsockopt: libc.func('int setsockopt(int, int, int, void *, unsigned int)'),
    getsockopt: libc.func('int getsockopt(int, int, int, void *, void *)'),
    send: libc.func('long send(int, void *, size_t, int)'),
    recvmmsg: libc.func('int recvmmsg(int, void *, unsigned int, int, void *)'),
    close: libc.func('int close(int)'),
  };
}
let library: ReturnType<typeof loadLibrary> | undefined;

/** @throws SondeError CONNTRACK_NOT_PERMITTED, CONNTRACK_MODULE_MISSING, CONNTRACK_SOCKET_REFUSED */
export async function openNetlinkSocket(config: NetlinkSocketConfig): Promise<NetlinkSocket> {
  const { groups, datagrams, datagramOctets } = config;
  library ??= loadLibrary();
  const libc = await library.catch((cause: Error) => {
    library = undefined;
    const what = 'loading koffi, which reaches the sockets of libc';
    throw new SondeError('CONNTRACK_SOCKET_REFUSED', { what, why: cause.message }, { cause });
  });
  const fd: number = libc.socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_NETFILTER);
  if (fd < 0) throw refusal(libc.errno(), 'opening a netlink socket');
  let isOpen = true;

  function attempt(what: string, result: number): void {
    if (result >= 0) return;
    const error = refusal(libc.errno(), what);
    libc.close(fd);
    throw error;
  }

  if (config.receiveBufferOctets !== undefined) {
    const size = new Uint8Array(new Int32Array([config.receiveBufferOctets]).buffer);
    // The first is for CAP_NET_ADMIN alone, and knows no limit; the second obeys net.core.rmem_max.
    if (libc.setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, size, 4) < 0)
      attempt('sizing a netlink socket', libc.setsockopt(fd, SOL_SOCKET, SO_RCVBUF, size, 4));
  }
  // struct sockaddr_nl: family, padding, port (0: the kernel chooses), groups; all in the order of the machine.
  const address = new Uint32Array([0, 0, groups]);
  new Uint16Array(address.buffer)[0] = AF_NETLINK;
  attempt('binding a netlink socket', libc.bind(fd, address, address.byteLength));

  // One block that does not move: headers, where each leads to, and room for the datagrams.
  const vectors = datagrams * MMSGHDR.octets;
  const rooms = vectors + datagrams * IOVEC.octets;
  const block = new Uint8Array(new ArrayBuffer(rooms + datagrams * datagramOctets));
  const view = new DataView(block.buffer);
  const place: bigint = libc.addressOf(block);
  const little = LITTLE_ENDIAN;
  for (let i = 0; i < datagrams; i++) {
    const header = i * MMSGHDR.octets;
    const vector = vectors + i * IOVEC.octets;
    view.setBigUint64(header + MMSGHDR.iov, place + BigInt(vector), little);
    view.setBigUint64(header + MMSGHDR.iovlen, 1n, little);
    view.setBigUint64(vector + IOVEC.base, place + BigInt(rooms + i * datagramOctets), little);
    view.setBigUint64(vector + IOVEC.length, BigInt(datagramOctets), little);
  }

  const memory = new Uint32Array(MEMINFO_NUMBERS);
  const memoryLength = new Uint32Array(1);
  function meminfo(number: number): number {
    memoryLength[0] = memory.byteLength;
    return libc.getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, memoryLength) < 0 ? 0 : memory[number]!;
  }

  function receive(): number {
    const count: number = libc.recvmmsg(fd, block, datagrams, MSG_DONTWAIT, null);
    if (count >= 0) return count;
    const errno = libc.errno();
    return errno === constants.errno.EAGAIN || errno === constants.errno.EINTR ? 0 : -errno;
  }

  return {
    send(message) {
      if ((libc.send(fd, message, message.length, 0) as number) < 0) throw refusal(libc.errno(), 'asking the kernel');
    },
    sendAside: (message) =>
      new Promise((resolve, reject) => {
        libc.send.async(fd, message, message.length, 0, (error: Error | null, sent: number) => {
          if (error !== null) reject(error);
          else if (sent >= 0) resolve();
          // What failed on another thread left its number there. Asked again here, the kernel says it again.
          else if ((libc.send(fd, message, message.length, 0) as number) >= 0) resolve();
          else reject(refusal(libc.errno(), 'asking the kernel'));
        });
      }),
    receive,
    receiveAside: () =>
      new Promise((resolve, reject) => {
        libc.recvmmsg.async(fd, block, datagrams, MSG_DONTWAIT, null, (error: Error | null, count: number) => {
          if (error !== null) reject(error);
          // What failed on another thread left its number there: it is asked for here.
          else resolve(count >= 0 ? count : receive());
        });
      }),
    view,
    offsetOf: (datagram) => rooms + datagram * datagramOctets,
    lengthOf: (datagram) => view.getUint32(datagram * MMSGHDR.octets + MMSGHDR.received, little),
    dropped: () => meminfo(MEMINFO_DROPS),
    get receiveBufferOctets() {
      return meminfo(MEMINFO_RCVBUF);
    },
    close() {
      if (isOpen) libc.close(fd);
      isOpen = false;
    },
  };
}

/** What a number of errno means to a person, where something was asked of the kernel. */
export function refusal(errno: number, what: string): SondeError {
  const why = getSystemErrorName(-errno);
  if (errno === constants.errno.EPERM || errno === constants.errno.EACCES)
    return new SondeError('CONNTRACK_NOT_PERMITTED', { what, why });
  // nfnetlink answers EINVAL for a subsystem that it does not have and cannot load.
  if (
    errno === constants.errno.EINVAL ||
    errno === constants.errno.EPROTONOSUPPORT ||
    errno === constants.errno.EAFNOSUPPORT
  )
    return new SondeError('CONNTRACK_MODULE_MISSING', { what, why });
  return new SondeError('CONNTRACK_SOCKET_REFUSED', { what, why });
}

import type { NetlinkSocket, NetlinkSocketConfig } from '../../src/link/conntrack/netlink-socket.ts';

/** A kernel in memory: what it is asked, and datagrams or numbers of errno (negative) that its sockets fetch, in order. */
export interface MemoryKernel {
  /** Sockets that listen. */
  readonly listeners: MemorySocket[];
  /** Sockets that ask. */
  readonly askers: MemorySocket[];
  /** What an asking socket fetches after each question. */
  answers: (question: Uint8Array) => readonly (Uint8Array | number)[];
  open(config: NetlinkSocketConfig): Promise<NetlinkSocket>;
}

interface MemorySocket {
  readonly asked: Uint8Array[];
  readonly waiting: (Uint8Array | number)[];
  dropped: number;
  isClosed: boolean;
}

export function createMemoryKernel(): MemoryKernel {
  const kernel: MemoryKernel = { listeners: [], askers: [], answers: () => [], open };
  return kernel;

  async function open({ groups, datagrams, datagramOctets, receiveBufferOctets = 0 }: NetlinkSocketConfig) {
    const state: MemorySocket = { asked: [], waiting: [], dropped: 0, isClosed: false };
    (groups === 0 ? kernel.askers : kernel.listeners).push(state);
    const block = new Uint8Array(datagrams * datagramOctets);
    const lengths: number[] = [];
    const send = (message: Uint8Array): void => {
      state.asked.push(message);
      state.waiting.push(...kernel.answers(message));
    };
    const receive = (): number => {
      if (typeof state.waiting[0] === 'number') return state.waiting.shift() as number;
      lengths.length = 0;
      while (lengths.length < datagrams && state.waiting[0] instanceof Uint8Array) {
        const datagram = state.waiting.shift() as Uint8Array;
        block.set(datagram, lengths.length * datagramOctets);
        lengths.push(datagram.length);
      }
      return lengths.length;
    };
    return {
      send,
      sendAside: async (message: Uint8Array) => send(message),
      receive,
      receiveAside: async () => receive(),
      view: new DataView(block.buffer),
      offsetOf: (datagram: number) => datagram * datagramOctets,
      lengthOf: (datagram: number) => lengths[datagram]!,
      dropped: () => state.dropped,
      receiveBufferOctets: 2 * receiveBufferOctets,
      close() {
        state.isClosed = true;
      },
    };
  }
}

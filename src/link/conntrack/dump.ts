import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { SondeError } from '../../model/errors.ts';
import { type ConntrackWants, createConntrackDecoder } from '../../wire/netlink/conntrack-decoder.ts';
import { encodeConntrack } from '../../wire/netlink/conntrack-encoder.ts';
import type { ConntrackRecord } from '../../wire/netlink/conntrack-record.ts';
import { CONNTRACK_MESSAGES, FLAGS } from '../../wire/netlink/constants.ts';
import { type NetlinkSocket, type NetlinkSocketConfig, refusal } from './netlink-socket.ts';

/** The kernel fills no datagram of a dump beyond this (netlink_dump, af_netlink.c); eight of them are 1,000 entries of 250 octets. */
export const DUMP_SOCKET: NetlinkSocketConfig = { groups: 0, datagrams: 8, datagramOctets: 32 * 1024 };

/** Work between two turns of the event loop, milliseconds. A datagram of 130 entries is the least. */
const STRETCH_MS = 5;
/** Wait when nothing has come though the end has not been told: not seen, as the kernel works within the fetch. */
const EMPTY_WAIT_MS = 5;

export interface DumpFilter {
  /** Of the mark, the bits of `mask` have to be as in `value`. */
  readonly mark?: { readonly value: number; readonly mask: number };
  readonly family?: 4 | 6;
}

export interface DumpResult {
  /** Entries that were handed over. */
  readonly entries: number;
  /** The kernel says that the table changed in a way that the dump may have missed. */
  readonly interrupted: boolean;
  /** Entries of other zones or marks. */
  readonly foreign: number;
  readonly malformed: number;
}

/**
 * Reads the table once, a quarter of a MiB at a time, however large it is. It is no snapshot: each entry stands for itself.
 * @throws SondeError CONNTRACK_DUMP_FAILED (also past `deadlineMs`), CONNTRACK_NOT_PERMITTED, CONNTRACK_MODULE_MISSING. The socket is then no longer usable.
 */
export async function dumpTable(
  socket: NetlinkSocket,
  { filter, zone, deadlineMs }: { filter: DumpFilter; zone: ConntrackWants['zone']; deadlineMs: number },
  take: (record: ConntrackRecord) => void,
): Promise<DumpResult> {
  const { mark, family = 0 } = filter;
  // The kernel looks at marks itself; where one did not, the decoder does.
  const decoder = createConntrackDecoder({ ...(zone && { zone }), ...(mark && { mark }) });
  const values = mark && { mark: mark.value >>> 0, markMask: mark.mask >>> 0 };
  const result = { entries: 0, interrupted: false, foreign: 0, malformed: 0 };
  const deadline = performance.now() + deadlineMs;
  await socket.sendAside(
    encodeConntrack({
      type: CONNTRACK_MESSAGES.get,
      flags: FLAGS.request | FLAGS.dump,
      family,
      ...(values && { values }),
    }),
  );
  for (;;) {
    const count = await socket.receiveAside();
    if (count < 0) throw refusal(-count, 'reading the table');
    let stretch = performance.now();
    for (let i = 0; i < count; i++) {
      const outcome = decoder.decode(socket.view, socket.offsetOf(i), socket.lengthOf(i), take);
      result.entries += outcome.taken;
      result.foreign += outcome.foreign;
      result.malformed += outcome.malformed;
      result.interrupted ||= outcome.interrupted;
      if (outcome.errno !== 0) throw refusal(outcome.errno, 'reading the table');
      if (outcome.done) return result;
      if (performance.now() - stretch < STRETCH_MS) continue;
      await nextTurn();
      stretch = performance.now();
    }
    if (performance.now() > deadline)
      throw new SondeError('CONNTRACK_DUMP_FAILED', { why: `it took longer than ${deadlineMs} ms` });
    if (count === 0) await sleep(EMPTY_WAIT_MS);
  }
}

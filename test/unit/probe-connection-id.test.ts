import { describe, expect, it } from 'vitest';
import { connectionId } from '../../src/probe/flows/connection-id.ts';
import type { ConnectionKey } from '../../src/probe/flows/connection-table.ts';

const WEB: ConnectionKey = {
  zone: 5,
  ethertype: 0x0800,
  protocol: 6,
  localAddress: 0x0a0a0102,
  peerAddress: 0xc0a80302,
  localPort: 40_000,
  peerPort: 443,
  peerMac: 0,
};
const WEB6: ConnectionKey = {
  ...WEB,
  ethertype: 0x86dd,
  localAddress: 0xfd00_0000_0000_0001_0000_0000_0000_0002n,
  peerAddress: 0xfd00_0000_0000_0002_0000_0000_0000_0002n,
};

const idOf = (key: ConnectionKey, space = 'router/shop'): bigint => connectionId(key, space);
const fromThePeer = (key: ConnectionKey): ConnectionKey => ({
  ...key,
  zone: 9,
  localAddress: key.peerAddress,
  peerAddress: key.localAddress,
  localPort: key.peerPort,
  peerPort: key.localPort,
});

describe('id of a connection', () => {
  it('is the same from both ends', () => {
    for (const key of [WEB, WEB6, { ...WEB, peerAddress: WEB.localAddress }])
      expect(idOf(fromThePeer(key))).toBe(idOf(key));
  });

  it('differs with the address space, the protocol, and every end', () => {
    const ids = [WEB, WEB6].flatMap((key) => [
      idOf(key),
      idOf(key, 'router/other'),
      idOf({ ...key, protocol: 17 }),
      idOf({ ...key, localPort: 40_001 }),
      idOf({ ...key, peerPort: 444 }),
      // The ports change places, the addresses do not.
      idOf({ ...key, localPort: key.peerPort, peerPort: key.localPort }),
    ]);
    ids.push(idOf({ ...WEB6, localAddress: 0xfd00_0000_0000_0001_0000_0000_0000_0003n }));
    ids.push(idOf({ ...WEB6, localAddress: 0xfd01_0000_0000_0001_0000_0000_0000_0002n }));
    expect(new Set(ids).size).toBe(ids.length);
  });

  it('spreads neighbouring addresses and ports over both halves as chance would', () => {
    const [addresses, ports] = [500, 400];
    const count = addresses * ports;
    const ids = new Set<bigint>();
    const halves = [new Set<bigint>(), new Set<bigint>()] as const;
    for (let address = 0; address < addresses; address++)
      for (let port = 0; port < ports; port++) {
        const id = idOf({ ...WEB, peerAddress: 0x0a0a0000 + 256 * address, localPort: 32_768 + port });
        ids.add(id);
        halves[0].add(id >> 32n);
        halves[1].add(id & 0xffff_ffffn);
      }
    expect(ids.size).toBe(count);
    // By chance count^2 / 2^33 of them meet in a half, 4.7 here; 20 is seven standard deviations off.
    for (const half of halves) expect(count - half.size).toBeLessThan(20);
  });
});

import { describe, expect, it } from 'vitest';
import { checksumErrors } from '../../src/wire/packet/checksum-errors.ts';
import { decodePacket } from '../../src/wire/packet/decode.ts';
import { encodePacket } from '../../src/wire/packet/encode.ts';
import type { Packet } from '../../src/wire/packet/packet.ts';

const fromHex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replace(/\s/g, ''), 'hex'));
const read = (text: string): Packet => decodePacket(fromHex(text)) as Packet;

// Frames of public captures, cut to what matters. What is right is what tshark says, here and in test/system/packet-tshark.test.ts.
describe('odd frames', () => {
  const JUMBO =
    '0013c4c784f000123fae22f786dd6000000000000040fe800000000000000000000000000001fe8000000000000000000000000000020600c20400010000d903005000000001000000005002ffff00000000';

  it('a jumbogram has its length in an option, and ports', () => {
    const packet = read(JUMBO);
    expect(packet).toMatchObject({ tcp: { sourcePort: 55555, destinationPort: 80 }, note: { code: 'truncated' } });
    expect(packet.trailer).toHaveLength(0);
    expect(checksumErrors(packet)).toEqual([]);
  });

  it('a jumbogram is whole, with right checksums and what lies behind it', () => {
    const ipv6 = { source: 1n, destination: 2n, nextHeader: 0 };
    for (const [transport, octets, protocol] of [
      [{ tcp: { sourcePort: 1, destinationPort: 2 } }, 70_000 + 20, 6],
      [{ udp: { sourcePort: 1, destinationPort: 2 } }, 70_000 + 8, 17],
    ] as const) {
      const extensions = fromHex(
        `${protocol.toString(16).padStart(2, '0')}00c204${(octets + 8).toString(16).padStart(8, '0')}`,
      );
      const payload = new Uint8Array(70_000).fill(7);
      const spec = {
        eth: {},
        ipv6: { ...ipv6, extensions, protocol },
        ...transport,
        payload,
        trailer: fromHex('0102'),
      };
      const packet = decodePacket(encodePacket(spec)) as Packet;
      expect(packet.note).toBeUndefined();
      expect(packet.ipv6?.payloadLength).toBe(0);
      expect(packet.payload).toHaveLength(70_000);
      expect(packet.trailer).toHaveLength(2);
      expect(checksumErrors(packet)).toEqual([]);
      expect(packet.udp?.length ?? 0).toBe(0);
    }
  });

  it('no jumbogram is one that would fit the header, or says nothing', () => {
    expect(read(JUMBO.replace('c20400010000', 'c2040000001c')).tcp).toBeUndefined();
    expect(read(JUMBO.replace('c20400010000', '010400010000')).tcp).toBeUndefined();
    expect(read(JUMBO.replace('c20400010000', 'c2ff00010000')).tcp).toBeUndefined();
  });

  it('the checksum is for where the packet goes in the end', () => {
    const packet = read(
      '0013c4c784f000123fae22f786dd6000000000202b04220000000000024402123ffffeae22f722000000000002400002000000000004110200010000000022000000000002100002000000000004160d160a000827b6',
    );
    expect(checksumErrors(packet)).toEqual([]);
    const { checksum: _, ...udp } = packet.udp!;
    expect((decodePacket(encodePacket({ ...packet, udp })) as Packet).udp?.checksum).toBe(0x27b6);
  });

  it('a datagram ends where its own length says', () => {
    const packet = read('006094eb552f00c04f6b9fe00800450000203b890000401100000a00000192541c580400003500080000deadbeef');
    expect(packet).toMatchObject({ udp: { length: 8 }, payload: new Uint8Array(0), trailer: fromHex('deadbeef') });
    expect(packet.note).toBeUndefined();
    const longer = read('006094eb552f00c04f6b9fe00800450000203b890000401100000a00000192541c580400003500640001deadbeef');
    expect(longer).toMatchObject({ payload: fromHex('deadbeef'), note: { code: 'length' } });
    expect(checksumErrors(longer)).toEqual(['ipv4']);
    const none = read('006094eb552f00c04f6b9fe00800450000203b890000401100000a00000192541c580400003500070001deadbeef');
    expect(none).toMatchObject({ payload: fromHex('deadbeef'), note: { code: 'length' } });
    expect(checksumErrors(none)).toEqual(['ipv4']);
  });

  it('a fragment may hold less of a datagram than its length says, and nobody judges its checksum', () => {
    const extensions = fromHex('1100000100000005');
    const udp = { sourcePort: 1, destinationPort: 2, length: 2000, checksum: 5 };
    const spec = { eth: {}, ipv6: { nextHeader: 44, extensions, protocol: 17 }, udp, payload: new Uint8Array(16) };
    const packet = decodePacket(encodePacket(spec)) as Packet;
    expect(packet.note).toBeUndefined();
    expect(packet.payload).toHaveLength(16);
    expect(checksumErrors(packet)).toEqual([]);
  });

  it('ARP is for Ethernet only', () => {
    const frame = (hardware: string) =>
      read(`fffff7ffffff001f29da2d790806${hardware}080006040001001f29da2d79c0a80168000000000000c0a80101`);
    expect(frame('0201')).toMatchObject({ note: { code: 'unsupported' } });
    expect(frame('0201').arp).toBeUndefined();
    expect(frame('0001')).toMatchObject({ arp: { senderIp: 0xc0a80168 } });
    expect(frame('0001').note).toBeUndefined();
  });
});

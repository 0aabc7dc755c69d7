import { expect, it } from 'vitest';
import { parseIp } from '../../src/wire/address.ts';
import { readUdpDrops } from '../../src/wire/udp-sockets.ts';

const V4 = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops            
 1020: 0100007F:1283 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 54137 2 0000000000000000 217          
 1021: 00000000:1283 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 19340 2 0000000000000000 4            
 8531: 0A0002FF:0044 010002FF:0043 01 00000000:00000000 00:00000000 00000000   998        0 17283 2 0000000000000000 0            
`;
const V6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1020: 00000000000000000000000001000000:1283 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 54137 2 0000000000000000 12
 1021: B80D0120000000000000000001000000:1283 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 54137 2 0000000000000000 13
`;

it.each([
  [V4, '127.0.0.1', 4739, 217],
  [V4, '0.0.0.0', 4739, 4],
  [V4, '255.2.0.10', 68, 0],
  [V4, '127.0.0.1', 4740, undefined],
  [V4, '127.0.0.2', 4739, undefined],
  [V6, '::1', 4739, 12],
  [V6, '2001:db8::1', 4739, 13],
  [V6, '::', 4739, undefined],
  ['', '::', 4739, undefined],
  [' 1: 0100007F:1283', '127.0.0.1', 4739, undefined],
])('the drops of a socket are the last column of its line (%#)', (text, address, port, drops) => {
  expect(readUdpDrops(text, parseIp(address)!, port, true)).toBe(drops);
});

it('addresses are words of the machine: of one with the other order they are not turned round', () => {
  const text = V4.replace('0100007F:1283', '7F000001:1283');
  expect(readUdpDrops(text, parseIp('127.0.0.1')!, 4739, false)).toBe(217);
});

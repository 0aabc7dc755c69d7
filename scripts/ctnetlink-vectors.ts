/**
 * Writes test/vectors/ctnetlink.tsv: messages of this machine's kernel as they came, each beside what Debian's `conntrack` says of the same entry. Root; makes
 * two network namespaces and removes them.
 */
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createConntrackHosts, inside, makeEveryKind, PORTS, startInside } from '../test/support/conntrack-hosts.ts';
import { flowsOf } from '../test/support/conntrack-xml.ts';
import { ROOT } from './docs/sources.ts';

const XML = 'xml,extended,id,ktimestamp';
const HEADER_HEX = 32;

const hosts = await createConntrackHosts('ctvec');
const host = startInside(hosts.host);
const guest = startInside(hosts.guest);
const rows: string[] = [];
try {
  for (const setting of ['acct', 'timestamp', 'events'])
    await inside(hosts.host, ['sh', '-c', `echo 1 >/proc/sys/net/netfilter/nf_conntrack_${setting}`]);
  for (const port of [PORTS.plain, PORTS.zone, PORTS.mark]) await host.call('serve', { port, octets: 1000 });
  await host.call('listenRaw');
  const oracle = spawn('ip', ['netns', 'exec', hosts.host, 'conntrack', '-E', '-o', XML]);
  let told = '';
  oracle.stdout.on('data', (chunk: Buffer) => {
    told += chunk.toString();
  });
  await sleep(500);

  await makeEveryKind(hosts, guest);

  const entries = messages(await host.call<string[]>('raw'));
  const listed: string[] = [];
  for (const family of ['ipv4', 'ipv6'])
    listed.push(...flowsOf(await inside(hosts.host, ['conntrack', '-L', '-f', family, '-o', XML])));
  for (const xml of listed) add('entry', xml, entries);

  await inside(hosts.host, ['conntrack', '-F']);
  await sleep(500);
  oracle.kill();
  const events = messages(await host.call<string[]>('rawEvents'));
  for (const xml of flowsOf(told)) add(/type="(\w+)"/.exec(xml)?.[1] ?? '', xml, events);
} finally {
  await guest.stop();
  await host.stop();
  await hosts.remove();
}
writeFileSync(
  join(ROOT, 'test/vectors/ctnetlink.tsv'),
  `${[
    `# Messages of ctnetlink, Linux ${release().split('-')[0]}: kind, message (hex), what conntrack 1.4.7 says of it (-o ${XML}). Made by scripts/ctnetlink-vectors.ts.`,
    ...rows,
  ].join('\n')}\n`,
);
console.log(`${rows.length} messages`);

/** The message with the same id: CTA_ID is attribute 12 of 8 octets. */
function add(kind: string, xml: string, among: string[]): void {
  const id = Number(/<id>(\d+)<\/id>/.exec(xml)?.[1])
    .toString(16)
    .padStart(8, '0');
  // In a message of little endian: length 8, type 12, then the id in network order.
  const at = among.findIndex((hex) => hex.includes(`08000c00${id}`) && kindOf(hex) === kind);
  if (at < 0) return;
  rows.push([kind, among[at], xml.replaceAll(/\s*\n\s*/g, '')].join('\t'));
  among.splice(at, 1);
}

function kindOf(hex: string): string {
  if (hex.startsWith('0201', 8)) return 'destroy';
  const flags = Buffer.from(hex.slice(12, 16), 'hex').readUInt16LE();
  return (flags & 2) !== 0 ? 'entry' : (flags & 0x400) !== 0 ? 'new' : 'update';
}

/** Each message of datagrams; what carries no entry is left out. */
function messages(datagrams: readonly string[]): string[] {
  const found: string[] = [];
  for (const datagram of datagrams)
    for (let at = 0; at < datagram.length; ) {
      const length = 2 * Buffer.from(datagram.slice(at, at + 8), 'hex').readUInt32LE();
      if (length > HEADER_HEX + 8) found.push(datagram.slice(at, at + length));
      at += length;
    }
  return found;
}

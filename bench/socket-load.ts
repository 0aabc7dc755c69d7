/**
 * Runs inside a guest: short TCP connections one after the other, by plain socket calls of libc. Node's own sockets cost several times what the kernel's whole
 * way costs, and would hide what is measured.
 *   node socket-load.ts serve PORT REPLY_OCTETS
 *   node socket-load.ts call ADDRESS PORT   each line of its input is a number of seconds, each line of its output what came of them (`LoadOutcome`)
 */
import { createInterface } from 'node:readline';
import koffi from 'koffi';

export interface LoadOutcome {
  /** Connections whose reply came to its end. */
  readonly connections: number;
  readonly failed: number;
  readonly seconds: number;
}

/** asm-generic/socket.h, in.h. */
const AF_INET = 2;
const SOCK_STREAM = 1;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const BACKLOG = 1024;
const REQUEST_OCTETS = 100;
const ROOM_OCTETS = 65_536;

const libc = koffi.load(null);
const socket = libc.func('int socket(int, int, int)');
const setsockopt = libc.func('int setsockopt(int, int, int, void *, unsigned int)');
const bind = libc.func('int bind(int, void *, unsigned int)');
const listen = libc.func('int listen(int, int)');
const accept = libc.func('int accept(int, void *, void *)');
const connect = libc.func('int connect(int, void *, unsigned int)');
const send = libc.func('long send(int, void *, size_t, int)');
const recv = libc.func('long recv(int, void *, size_t, int)');
const close = libc.func('int close(int)');

const room = new Uint8Array(ROOM_OCTETS);

/** struct sockaddr_in. */
function socketAddress(address: string, port: number): Uint8Array {
  const bytes = new Uint8Array(16);
  new Uint16Array(bytes.buffer)[0] = AF_INET;
  new DataView(bytes.buffer).setUint16(2, port);
  bytes.set(address.split('.').map(Number), 4);
  return bytes;
}

/** Never returns: the signal that ends the process does. */
function serve(port: number, replyOctets: number): void {
  const reply = new Uint8Array(replyOctets);
  const listening: number = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, new Uint32Array([1]), 4);
  if (bind(listening, socketAddress('0.0.0.0', port), 16) < 0 || listen(listening, BACKLOG) < 0)
    throw new Error(`cannot listen on port ${port}`);
  for (;;) {
    const fd: number = accept(listening, null, null);
    if (fd < 0) continue;
    if (recv(fd, room, ROOM_OCTETS, 0) > 0) send(fd, reply, replyOctets, 0);
    close(fd);
  }
}

function call(address: Uint8Array, seconds: number): LoadOutcome {
  const request = new Uint8Array(REQUEST_OCTETS);
  const from = performance.now();
  let connections = 0;
  let failed = 0;
  while (performance.now() - from < seconds * 1000) {
    const fd: number = socket(AF_INET, SOCK_STREAM, 0);
    let got = 0;
    if (connect(fd, address, 16) === 0 && send(fd, request, REQUEST_OCTETS, 0) === REQUEST_OCTETS)
      for (let read = 1; read > 0; got += read) read = recv(fd, room, ROOM_OCTETS, 0);
    close(fd);
    if (got > 0) connections++;
    else failed++;
  }
  return { connections, failed, seconds: (performance.now() - from) / 1000 };
}

const [, , role, ...args] = process.argv;
if (role === 'serve') serve(Number(args[0]), Number(args[1]));
else
  for await (const line of createInterface({ input: process.stdin }))
    console.log(JSON.stringify(call(socketAddress(args[0] as string, Number(args[1])), Number(line))));

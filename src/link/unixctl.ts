import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SondeError } from '../model/errors.ts';
import { createRpcConnection } from './json-rpc.ts';
import { connectUnix } from './unix-socket.ts';

export interface UnixctlConfig {
  /** Folder with the daemon's pid file and control socket; on Debian /run/openvswitch. */
  readonly runDir: string;
  /** Default `ovs-vswitchd`. */
  readonly daemon?: string;
  /** Time for one command. Default 10,000. */
  readonly timeoutMs?: number;
}

/** The control socket of an OVS daemon: what `ovs-appctl` talks to, without starting a process. */
export interface Unixctl {
  /**
   * Runs a command and returns what it prints. Each call is a connection of its own, so a restart of the daemon between
   * two calls goes unnoticed.
   * @throws SondeError OVS_UNREACHABLE; UNIXCTL_REFUSED with the daemon's words.
   */
  call(method: string, args?: readonly string[]): Promise<string>;
}

/** Protocol: lib/unixctl.c, JSON-RPC over `<daemon>.<pid>.ctl`. */
export function createUnixctl(config: UnixctlConfig): Unixctl {
  const { runDir, daemon = 'ovs-vswitchd', timeoutMs = 10_000 } = config;
  return {
    async call(method, args = []) {
      const where = await socketOf(runDir, daemon);
      const stream = await connectUnix(where);
      const connection = createRpcConnection(
        stream,
        { where, probeMs: 0 },
        // A command has one answer: notifications are none, and the end of the connection rejects the call.
        { notification() {}, closed() {} },
      );
      try {
        const { result, error } = await connection.call(method, args, timeoutMs);
        if (error !== null) {
          const why = String(error).trim().split('\n').at(-1);
          throw new SondeError('UNIXCTL_REFUSED', { where, command: [method, ...args].join(' '), why });
        }
        if (typeof result === 'string') return result;
        throw new SondeError('OVS_ANSWER_INVALID', {
          where,
          why: `${method} answered with ${typeof result}, not text`,
        });
      } finally {
        connection.close();
      }
    },
  };
}

async function socketOf(runDir: string, daemon: string): Promise<string> {
  const file = join(runDir, `${daemon}.pid`);
  let pid: number;
  try {
    pid = Number.parseInt(await readFile(file, 'utf8'), 10);
  } catch (cause) {
    const why = `its pid file cannot be read (${(cause as NodeJS.ErrnoException).code}); is ${daemon} running?`;
    throw new SondeError('OVS_UNREACHABLE', { where: file, why }, { cause });
  }
  if (!Number.isInteger(pid)) throw new SondeError('OVS_UNREACHABLE', { where: file, why: 'it holds no pid' });
  return join(runDir, `${daemon}.${pid}.ctl`);
}

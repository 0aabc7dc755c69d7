import type { Duplex } from 'node:stream';
import { SondeError } from '../model/errors.ts';
import { createJsonFramer, type Json } from '../wire/ovsdb/json-framer.ts';
import { decodeRpc, encodeRpc, type RpcMessage } from '../wire/ovsdb/json-rpc.ts';
import { WireError } from '../wire/wire-error.ts';
import { watchSilence } from './silence.ts';

interface RpcResponse {
  readonly result: Json;
  readonly error: Json;
}

export interface RpcConnectionConfig {
  /** How errors name the peer: its socket's path. */
  readonly where: string;
  /** Silence after which the peer is asked for an echo; twice as long, and it is taken for dead. 0: never. */
  readonly probeMs: number;
}

export interface RpcConnectionHandlers {
  notification(method: string, params: readonly Json[]): void;
  /** Called once, with the reason. */
  closed(reason: SondeError): void;
}

/** One live JSON-RPC conversation (RFC 7047, section 4): a call that is answered, echo in both directions. */
export interface RpcConnection {
  /**
   * Resolves with the peer's answer, error or not.
   * @throws SondeError OVS_UNREACHABLE when the connection ends or the time is over first.
   */
  call(method: string, params: readonly Json[], timeoutMs: number): Promise<RpcResponse>;
  close(reason?: SondeError): void;
}

interface Pending {
  readonly resolve: (response: RpcResponse) => void;
  readonly reject: (error: SondeError) => void;
  readonly timer: NodeJS.Timeout;
}

/** Takes over a connected stream. */
export function createRpcConnection(
  stream: Duplex,
  config: RpcConnectionConfig,
  handlers: RpcConnectionHandlers,
): RpcConnection {
  const framer = createJsonFramer();
  const pending = new Map<Json, Pending>();
  const unreachable = (why: string): SondeError => new SondeError('OVS_UNREACHABLE', { where: config.where, why });
  let nextId = 0;
  let ended: SondeError | undefined;

  const end = (reason: SondeError): void => {
    if (ended !== undefined) return;
    ended = reason;
    silence.stop();
    stream.destroy();
    for (const one of pending.values()) {
      clearTimeout(one.timer);
      one.reject(reason);
    }
    pending.clear();
    handlers.closed(reason);
  };

  const send = (message: RpcMessage): void => {
    stream.write(encodeRpc(message));
  };

  const take = (message: RpcMessage): void => {
    if (message.kind === 'notification') handlers.notification(message.method, message.params);
    else if (message.kind === 'request') {
      const known = message.method === 'echo';
      const answer = known ? { result: message.params, error: null } : { result: null, error: 'unknown method' };
      send({ kind: 'response', id: message.id, ...answer });
    } else {
      // An answer that nobody waits for any more came after its time.
      const waiting = pending.get(message.id);
      if (waiting === undefined) return;
      pending.delete(message.id);
      clearTimeout(waiting.timer);
      waiting.resolve({ result: message.result, error: message.error });
    }
  };

  const silence = watchSilence(config.probeMs, {
    ask: () => send({ kind: 'request', id: 'echo', method: 'echo', params: [] }),
    dead: (ms) => end(unreachable(`it was silent for ${ms / 1000} s`)),
  });

  stream.on('data', (chunk: Uint8Array) => {
    silence.heard();
    for (const object of framer.push(chunk)) {
      const message = object instanceof WireError ? object : decodeRpc(object);
      if (message instanceof WireError) {
        return end(new SondeError('OVS_ANSWER_INVALID', { where: config.where, why: message.message }));
      }
      take(message);
      if (ended !== undefined) return;
    }
  });
  stream.on('error', (cause) => end(unreachable(cause.message)));
  const closed = (): void => end(unreachable('it closed the connection'));
  stream.on('end', closed);
  stream.on('close', closed);

  return {
    call(method, params, timeoutMs) {
      if (ended !== undefined) return Promise.reject(ended);
      const id = nextId++;
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => {
          pending.delete(id);
          reject(unreachable(`no answer to ${method} within ${timeoutMs / 1000} s`));
        }, timeoutMs);
        pending.set(id, { resolve, reject, timer });
        send({ kind: 'request', id, method, params });
      });
    },
    close: (reason = unreachable('the connection was closed from here')) => end(reason),
  };
}

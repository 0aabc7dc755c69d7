import type { Duplex } from 'node:stream';
import { SondeError } from '../model/errors.ts';
import { errorName } from '../wire/openflow/error-names.ts';
import { createOpenFlowFramer } from '../wire/openflow/framer.ts';
import {
  decodeMessage,
  type Envelope,
  encodeMessage,
  type Message,
  type MessageOf,
  VERSION,
  writeMessage,
} from '../wire/openflow/message.ts';
import { MESSAGES } from '../wire/openflow/messages.ts';
import { OctetWriter } from '../wire/openflow/octet-writer.ts';
import { type Decoded, WireError } from '../wire/wire-error.ts';
import { describeMessage } from './openflow-describe.ts';
import { watchSilence } from './silence.ts';
import { createTurns } from './turns.ts';

export interface OpenFlowSessionConfig {
  /** How errors name the switch: its socket's path. */
  readonly where: string;
  /** For the advice in errors. */
  readonly bridge: string;
  /** Silence after which the switch is asked for an echo; twice as long, and it is taken for dead. */
  readonly probeMs: number;
  /** Time for one answer. */
  readonly timeoutMs: number;
}

export interface OpenFlowSessionHandlers {
  /** What the switch sends of its own accord. */
  event(message: Message): void;
  /** A refusal that belongs to no request of this session. */
  stray(error: SondeError): void;
  /** Called once, with the reason. */
  closed(reason: SondeError): void;
}

/** Numbered messages that are sent without waiting for each; the first that is refused is remembered. */
interface Batch {
  readonly first: number;
  readonly messages: readonly Message[];
  refused: SondeError | undefined;
}

interface Pending {
  readonly message: Message;
  readonly entries: unknown[];
  /** Takes the parts of a multipart answer undecoded, and says whether others follow. */
  readonly part?: (frame: Uint8Array) => Decoded<boolean>;
  /** Without an answer where parts took it. */
  readonly resolve: (answer: Message | undefined) => void;
  readonly reject: (error: unknown) => void;
  readonly timer: NodeJS.Timeout;
}

/** One live OpenFlow conversation: requests tied to answers and errors by transaction id, echo in both directions. */
export interface OpenFlowSession {
  /** Agrees on OpenFlow 1.5. @throws SondeError OPENFLOW_VERSION. */
  hello(): Promise<void>;
  /**
   * Resolves with the answer; of a multipart answer with all its entries in one.
   * @throws SondeError OPENFLOW_REJECTED; OVS_UNREACHABLE when the connection ends or the time is over first.
   */
  call<K extends Message['type']>(message: Message, answer: K): Promise<Extract<Message, { type: K }>>;
  /**
   * Asks for a multipart answer whose parts go to `part` one by one, undecoded and unkept: it says whether others follow. They may come over many
   * turns of the event loop; `timeoutMs` is for each.
   * @throws as `call`; OVS_ANSWER_INVALID; what `part` throws.
   */
  parts(message: Message, part: (frame: Uint8Array) => Decoded<boolean>): Promise<void>;
  /**
   * Sends messages whose answers nobody needs, as fast as the switch takes them, then `steps` one by one, each answered
   * with `answer`: by then every refusal of what went before has come. The next step is not taken after a refusal.
   * @throws as `call`; it names the first message that was refused.
   */
  stream(messages: readonly Message[], steps: readonly Message[], answer: Message['type']): Promise<void>;
  close(reason?: SondeError): void;
}

/** Time that received messages may take of one turn of the event loop, ms: a dump of many flows is no reason to hold up all else. */
const TURN_MS = 8;
/** Octets that are encoded before they go to the socket. */
const CHUNK = 64 * 1024;
const MOST_XID = 0x7fffffff;

/** Takes over a connected stream. */
export function createOpenFlowSession(
  stream: Duplex,
  config: OpenFlowSessionConfig,
  handlers: OpenFlowSessionHandlers,
): OpenFlowSession {
  const { where, probeMs, timeoutMs } = config;
  const framer = createOpenFlowFramer();
  const pending = new Map<number, Pending>();
  const batches = new Set<Batch>();
  const unreachable = (why: string): SondeError => new SondeError('OVS_UNREACHABLE', { where, why });
  let nextXid = 1;
  let ended: SondeError | undefined;
  let greeted: ((error?: SondeError) => void) | undefined;

  const end = (reason: SondeError): void => {
    if (ended !== undefined) return;
    ended = reason;
    silence.stop();
    turns.stop();
    stream.destroy();
    for (const one of pending.values()) {
      clearTimeout(one.timer);
      one.reject(reason);
    }
    pending.clear();
    greeted?.(reason);
    handlers.closed(reason);
  };

  const takeXids = (count: number): number => {
    if (nextXid + count > MOST_XID) nextXid = 1;
    const first = nextXid;
    nextXid += count;
    return first;
  };

  const rejection = (what: string, error: MessageOf<'error'>, message?: Message): SondeError =>
    new SondeError('OPENFLOW_REJECTED', {
      where,
      what,
      why: errorName(error.errorType, error.errorCode),
      errorType: error.errorType,
      errorCode: error.errorCode,
      ...(message !== undefined && { message }),
    });

  const takeError = (xid: number, error: MessageOf<'error'>): void => {
    const one = pending.get(xid);
    if (one !== undefined) {
      forget(xid, one);
      one.reject(rejection(describeMessage(one.message), error, one.message));
      return;
    }
    for (const batch of batches) {
      const refused = batch.messages[xid - batch.first];
      if (refused === undefined) continue;
      batch.refused ??= rejection(describeMessage(refused), error, refused);
      return;
    }
    handlers.stray(rejection(`a message that nobody waits for (transaction ${xid})`, error));
  };

  const forget = (xid: number, one: Pending): void => {
    pending.delete(xid);
    clearTimeout(one.timer);
  };

  const takeHello = (version: number, versions: readonly number[]): void => {
    const isSpoken = versions.length > 0 ? versions.includes(VERSION) : version >= VERSION;
    if (isSpoken) {
      greeted?.();
      return;
    }
    const offered = (versions.length > 0 ? versions : [version]).map((one) => `1.${one - 1}`).join(', ');
    end(new SondeError('OPENFLOW_VERSION', { where, bridge: config.bridge, versions: offered }));
  };

  const takeGreeting = ({ version, message }: Envelope): void => {
    if (message.type === 'hello') takeHello(version, message.versions);
    else if (message.type === 'error') {
      // HELLO_FAILED: the switch says in words which versions it speaks.
      const versions = new TextDecoder().decode(message.data).trim() || 'none in common';
      end(new SondeError('OPENFLOW_VERSION', { where, bridge: config.bridge, versions }));
    }
  };

  const takeAnswer = (xid: number, one: Pending, message: Message): void => {
    if (message.type !== 'multipart_reply') {
      forget(xid, one);
      one.resolve(message);
      return;
    }
    for (const entry of message.entries) one.entries.push(entry);
    if (message.more === true) {
      one.timer.refresh();
      return;
    }
    forget(xid, one);
    one.resolve({ ...message, entries: one.entries } as MessageOf<'multipart_reply'>);
  };

  const takePart = (xid: number, one: Pending, frame: Uint8Array): void => {
    let more: Decoded<boolean>;
    try {
      more = one.part!(frame);
    } catch (error) {
      // The caller's own. Parts that still come are nobody's.
      forget(xid, one);
      one.reject(error);
      return;
    }
    if (more instanceof WireError) misread(more);
    else if (more) one.timer.refresh();
    else {
      forget(xid, one);
      one.resolve(undefined);
    }
  };

  const take = (envelope: Envelope): void => {
    const { xid, message } = envelope;
    const one = pending.get(xid);
    if (greeted !== undefined) takeGreeting(envelope);
    else if (message.type === 'echo_request') {
      stream.write(encodeMessage(xid, { type: 'echo_reply', data: message.data }));
    } else if (message.type === 'error') takeError(xid, message);
    else if (one !== undefined) takeAnswer(xid, one, message);
    else if (message.type !== 'echo_reply') handlers.event(message);
  };

  const misread = (error: WireError): void => end(new SondeError('OVS_ANSWER_INVALID', { where, why: error.message }));

  const turns = createTurns<Uint8Array | WireError>(TURN_MS, {
    pause: () => stream.pause(),
    resume: () => stream.resume(),
    take(frame) {
      if (frame instanceof WireError) return misread(frame);
      const { xid, isPart } = peek(frame);
      const one = isPart ? pending.get(xid) : undefined;
      if (one?.part !== undefined) return takePart(xid, one, frame);
      const envelope = decodeMessage(frame);
      if (envelope instanceof WireError) misread(envelope);
      else take(envelope);
    },
  });

  const silence = watchSilence(probeMs, {
    ask: () => stream.write(encodeMessage(0, { type: 'echo_request', data: new Uint8Array() })),
    dead: (ms) => end(unreachable(`it was silent for ${ms / 1000} s`)),
  });

  stream.on('data', (piece: Uint8Array) => {
    silence.heard();
    turns.push(framer.push(piece));
  });
  stream.on('error', (cause) => end(unreachable(cause.message)));
  const closed = (): void => end(unreachable('it closed the connection'));
  stream.on('end', closed);
  stream.on('close', closed);

  /** @param settle gives the result of the answer, or throws. */
  const wait = <T>(
    xid: number,
    message: Message,
    settle: (found: Message | undefined) => T,
    part?: (frame: Uint8Array) => Decoded<boolean>,
  ): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      if (ended !== undefined) {
        reject(ended);
        return;
      }
      const timer = setTimeout(() => {
        pending.delete(xid);
        reject(unreachable(`no answer to ${describeMessage(message)} within ${timeoutMs / 1000} s`));
      }, timeoutMs);
      pending.set(xid, {
        message,
        entries: [],
        ...(part !== undefined && { part }),
        timer,
        reject,
        resolve(found) {
          try {
            resolve(settle(found));
          } catch (error) {
            reject(error);
          }
        },
      });
    });

  const expect = <K extends Message['type']>(xid: number, message: Message, answer: K) =>
    wait(xid, message, (found) => {
      if (found?.type === answer) return found as Extract<Message, { type: K }>;
      const why = `it answered ${describeMessage(message)} with ${found?.type}`;
      throw new SondeError('OVS_ANSWER_INVALID', { where, why });
    });

  /** Waits until the socket has taken what it holds. */
  const drained = (): Promise<void> =>
    new Promise((resolve, reject) => {
      if (ended !== undefined) {
        reject(ended);
        return;
      }
      const settle = (): void => {
        stream.off('drain', settle);
        stream.off('close', settle);
        if (ended === undefined) resolve();
        else reject(ended);
      };
      stream.on('drain', settle);
      stream.on('close', settle);
    });

  return {
    hello() {
      if (ended !== undefined) return Promise.reject(ended);
      return new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => end(unreachable(`no hello within ${timeoutMs / 1000} s`)), timeoutMs);
        greeted = (error) => {
          clearTimeout(timer);
          greeted = undefined;
          if (error === undefined) resolve();
          else reject(error);
        };
        stream.write(encodeMessage(0, { type: 'hello', versions: [VERSION] }));
      });
    },
    async call(message, answer) {
      if (ended !== undefined) throw ended;
      const xid = takeXids(1);
      const answered = expect(xid, message, answer);
      stream.write(encodeMessage(xid, message));
      return answered;
    },
    async parts(message, part) {
      if (ended !== undefined) throw ended;
      const xid = takeXids(1);
      const done = wait(xid, message, () => undefined, part);
      stream.write(encodeMessage(xid, message));
      return done;
    },
    async stream(messages, steps, answer) {
      if (ended !== undefined) throw ended;
      const first = takeXids(messages.length + steps.length);
      const batch: Batch = { first, messages, refused: undefined };
      batches.add(batch);
      try {
        const writer = new OctetWriter(CHUNK + 4096);
        for (let i = 0; i < messages.length; i++) {
          writeMessage(writer, first + i, messages[i]!);
          if (writer.length < CHUNK) continue;
          if (!stream.write(writer.take())) await drained();
          // The rest would not mend it. The first step still has to come: its answer tells that all refusals are in.
          if (batch.refused !== undefined) break;
        }
        for (const [i, step] of steps.entries()) {
          const xid = first + messages.length + i;
          const answered = expect(xid, step, answer);
          writeMessage(writer, xid, step);
          stream.write(writer.take());
          // A switch that refuses a commit names the message at fault first, then the commit.
          await answered.catch((error: SondeError) => {
            throw batch.refused ?? error;
          });
          if (batch.refused !== undefined) throw batch.refused;
        }
      } finally {
        batches.delete(batch);
      }
    },
    close: (reason = unreachable('the connection was closed from here')) => end(reason),
  };
}

/** Transaction, and whether it is a part of a multipart answer, without decoding. The framer gives no message without its header. */
function peek(frame: Uint8Array): { readonly xid: number; readonly isPart: boolean } {
  const xid = new DataView(frame.buffer, frame.byteOffset).getUint32(4);
  return { xid, isPart: frame[1] === MESSAGES.multipart_reply.number };
}

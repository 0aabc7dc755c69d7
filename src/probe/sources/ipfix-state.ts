import { mkdir, open, readFile, rename, stat } from 'node:fs/promises';
import { isIP } from 'node:net';
import { dirname } from 'node:path';
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { SondeError } from '../../model/errors.ts';
import { createIpfixDecoder, type SavedStream } from '../../wire/ipfix/decoder.ts';
import type { IpfixListening, IpfixSource } from './ipfix.ts';

export interface IpfixStateConfig {
  /** Where it is kept; its directory is made. */
  readonly file: string;
  /** How often is looked whether templates have changed, milliseconds. Default 1000. */
  readonly intervalMs?: number;
}

export interface IpfixStateDeps {
  /** IPFIX_STATE_INVALID, IPFIX_STATE_UNWRITABLE: the agent goes on without it. The caller limits what it logs. */
  readonly onTrouble: (error: SondeError) => void;
}

const VERSION = 1;
/** Streams with templates that are kept, those that spoke last: each exporter that was set up anew was another one. */
const MOST_STREAMS = 16;
/** More than the decoder's limits allow: it is no file of ours then. */
const MOST_OCTETS = 16 * 1024 * 1024;

const Uint32 = Type.Integer({ minimum: 0, maximum: 0xffff_ffff });

/** The file. A sequence is there only after an orderly end, and until the next start has read it. */
const IpfixState = Type.Object({
  version: Type.Literal(VERSION),
  streams: Type.Array(
    Type.Object({
      address: Type.String({ maxLength: 64 }),
      port: Type.Integer({ minimum: 0, maximum: 0xffff }),
      domain: Uint32,
      /** Template sets, base64. */
      sets: Type.String(),
      sequence: Type.Optional(
        Type.Object({ next: Uint32, exportTime: Uint32, arrival: Type.Number({ minimum: 0, maximum: 2 ** 53 }) }),
      ),
    }),
    { maxItems: MOST_STREAMS },
  ),
});
type IpfixState = Static<typeof IpfixState>;
const validState = Compile(IpfixState);

/**
 * Keeps what an IPFIX source knows of its exporters over a restart of the agent: templates, so that no record waits for them, and after an orderly end the
 * sequence numbers, so that what was lost while the agent was away is counted. After a crash the numbers would be those of an earlier time, and
 * what was received since then would count as lost: they are not used then.
 */
export function createIpfixState({ file, intervalMs = 1000 }: IpfixStateConfig, { onTrouble }: IpfixStateDeps) {
  let source: IpfixSource | undefined;
  let timer: NodeJS.Timeout | undefined;
  let seen = '';
  let writing: Promise<boolean> = Promise.resolve(true);

  /** One after the other; resolves to whether it was kept. */
  function write(streams: readonly SavedStream[]): Promise<boolean> {
    const kept = streams.filter(({ sets }) => sets.length > 0).slice(-MOST_STREAMS);
    const text = JSON.stringify(toState(kept));
    writing = writing.then(async () => {
      try {
        await replace(file, text);
        return true;
      } catch (cause) {
        const why = (cause as Error).message;
        onTrouble(new SondeError('IPFIX_STATE_UNWRITABLE', { file, why }, { cause }));
        return false;
      }
    });
    return writing;
  }

  function saveChanges(): void {
    if (source === undefined) return;
    const { templates, withdrawals, forgottenStreams } = source.counts();
    const now = `${templates} ${withdrawals} ${forgottenStreams}`;
    if (now === seen) return;
    seen = now;
    write(withoutSequences(source.save()));
  }

  return {
    /** What the last run left, for the source's `saved`; nothing where it left none, or nothing that is understood. Call it once, before `start`. */
    async load(): Promise<readonly SavedStream[]> {
      try {
        const streams = await read(file);
        if (streams.every(({ sequence }) => sequence === undefined)) return streams;
        // This run's end may not be an orderly one.
        return (await write(withoutSequences(streams))) ? streams : withoutSequences(streams);
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return [];
        onTrouble(new SondeError('IPFIX_STATE_INVALID', { file, why: (cause as Error).message }, { cause }));
        return [];
      }
    },
    /** Saves the templates of a source whenever they change. */
    start(started: IpfixSource): void {
      source = started;
      timer = setInterval(saveChanges, intervalMs);
      timer.unref();
    },
    /** Saves all, sequence numbers too. Call it when the source has stopped. */
    async stop(): Promise<void> {
      clearInterval(timer);
      if (source !== undefined) await write(source.save());
      source = undefined;
    },
  };
}

/**
 * Whether the exporter of an earlier run has to be set up anew for its templates, at the cost of what passes in some 20 ms. Not where it goes on sending to
 * the very port that is listened on and templates of a session are known. Where they are of another session, as after a restart of Open vSwitch while the
 * agent was away, `onTemplatesMissing` tells it with the first record.
 * @param target what the exporter sends to, `address:port`; undefined where there is none
 */
export function needsNewExporter(
  saved: readonly SavedStream[],
  target: string | undefined,
  { address, port }: Pick<IpfixListening, 'address' | 'port'>,
): boolean {
  return target !== `${address}:${port}` || !saved.some(({ sets }) => sets.length > 0);
}

/** @throws what the file system throws, or an Error with the reason */
async function read(file: string): Promise<readonly SavedStream[]> {
  const { size } = await stat(file);
  if (size > MOST_OCTETS) throw new SyntaxError(`it has ${size} octets`);
  const state: unknown = JSON.parse(await readFile(file, 'utf8'));
  if (!validState.Check(state)) {
    const [first] = validState.Errors(state);
    throw new SyntaxError(`${first?.instancePath || 'it'} ${first?.message ?? 'is no state of this version'}`);
  }
  const streams = state.streams.map((stream) => ({
    ...stream,
    sets: Uint8Array.from(Buffer.from(stream.sets, 'base64')),
  }));
  const trial = createIpfixDecoder({ dialect: 'openvswitch' });
  for (const stream of streams) {
    if (isIP(stream.address) === 0) throw new SyntaxError(`${JSON.stringify(stream.address)} is no address`);
    const error = trial.restore(stream);
    if (error !== undefined) throw error;
  }
  return streams;
}

function toState(streams: readonly SavedStream[]): IpfixState {
  return {
    version: VERSION,
    streams: streams.map(({ sets, ...stream }) => ({ ...stream, sets: Buffer.from(sets).toString('base64') })),
  };
}

function withoutSequences(streams: readonly SavedStream[]): readonly SavedStream[] {
  return streams.map(({ sequence: _, ...stream }) => stream);
}

/** A reader, or a crash, finds the old text or the new one, never a part. */
async function replace(file: string, text: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  const beside = `${file}.new`;
  const handle = await open(beside, 'w', 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(beside, file);
}

import type { IpfixCounts } from './counts.ts';
import { compileSampleReader, type SampleReader } from './sample-reader.ts';
import { createSequence, type SequenceState } from './sequence.ts';
import type { Template } from './template.ts';

/** Where a message comes from: one transport session over UDP. */
export interface IpfixSession {
  readonly address: string;
  readonly port: number;
}

export interface KnownTemplate extends Template {
  readonly reader: SampleReader | undefined;
  /** What its records are. Total only: of flows, but without a count of what was since the last record. */
  readonly use: 'sample' | 'options' | 'totalOnly' | 'notSample';
}

/** All that is known of a session, or of a domain of one. */
export interface Stream {
  readonly session: IpfixSession;
  readonly scope: number;
  readonly templates: ReadonlyMap<number, KnownTemplate>;
  readonly sequence: ReturnType<typeof createSequence>;
}

export interface StreamsLimits {
  readonly streams: number;
  /** Templates of one stream. */
  readonly templates: number;
  /** Fields of all templates of one stream; a field takes some 100 octets of memory. */
  readonly fields: number;
}

/** How many times the limits of one stream all streams may have together. */
const ALL = 4;

const DELTAS = ['octetDeltaCount', 'packetDeltaCount', 'layer2OctetDeltaCount'];
const TOTALS = ['octetTotalCount', 'packetTotalCount', 'layer2OctetTotalCount'];

interface OwnStream extends Stream {
  readonly templates: Map<number, KnownTemplate>;
  fields: number;
  /** How many of the templates are of options. */
  options: number;
}

/**
 * Streams with their templates and sequence numbers. Bounded in number, and in templates and fields of each and of all: beyond, of those without templates
 * the one that was silent longest is forgotten, and then of all.
 */
export function createStreams(most: StreamsLimits, counts: IpfixCounts) {
  const streams = new Map<string, OwnStream>();
  let templates = 0;
  let fields = 0;
  // Messages come in runs from one session: the last one's key and stream are at hand.
  let last: OwnStream | undefined;

  /** The oldest of those with templates, or without; where there are none, the oldest of all. */
  function forgetOldest(hasTemplates: boolean): void {
    let [key, oldest] = streams.entries().next().value!;
    for (const [eachKey, each] of streams)
      if (each.templates.size > 0 === hasTemplates) {
        key = eachKey;
        oldest = each;
        break;
      }
    streams.delete(key);
    templates -= oldest.templates.size;
    fields -= oldest.fields;
    counts.forgottenStreams++;
  }

  function remove(stream: OwnStream, id: number): void {
    const old = stream.templates.get(id);
    if (old === undefined) return;
    stream.templates.delete(id);
    stream.fields -= old.fieldCount;
    fields -= old.fieldCount;
    templates--;
    if (old.isOptions) stream.options--;
  }

  return {
    /** The stream of a session and scope; a new one goes on in the sequence numbers of `saved`. */
    of({ address, port }: IpfixSession, scope: number, saved?: SequenceState): Stream {
      if (last !== undefined && port === last.session.port && scope === last.scope && address === last.session.address)
        return last;
      const key = `${address}|${port}|${scope}`;
      let stream = streams.get(key);
      if (stream === undefined) {
        // Those without templates are no loss, and anybody can make many.
        if (streams.size >= most.streams) forgetOldest(false);
        const sequence = createSequence(counts, saved);
        stream = { session: { address, port }, scope, templates: new Map(), sequence, fields: 0, options: 0 };
      }
      // To the end of the map: its order is that of the last switch to a stream.
      streams.delete(key);
      streams.set(key, stream);
      last = stream;
      return stream;
    },
    /** Makes a template known to the stream that spoke last, or nothing where that would be too many, or too many fields. */
    define(known: Stream, template: Template): KnownTemplate | undefined {
      const stream = known as OwnStream;
      const old = stream.templates.get(template.id);
      if (old !== undefined && isSame(old.bytes, template.bytes)) return old;
      const { id, fieldCount } = template;
      if (old === undefined && stream.templates.size >= most.templates) return undefined;
      if (stream.fields - (old?.fieldCount ?? 0) + fieldCount > most.fields) return undefined;
      remove(stream, id);
      const defined = withUse(template);
      stream.templates.set(id, defined);
      stream.fields += fieldCount;
      fields += fieldCount;
      templates++;
      if (defined.isOptions) stream.options++;
      counts.templates++;
      // This one is the last in the map, and alone within the limits.
      while (templates > ALL * most.templates || fields > ALL * most.fields) forgetOldest(true);
      return defined;
    },
    withdraw(stream: Stream, id: number): void {
      remove(stream as OwnStream, id);
    },
    withdrawAll(known: Stream, isOptions: boolean): void {
      const stream = known as OwnStream;
      // A message may say it 16,000 times.
      if ((isOptions ? stream.options : stream.templates.size - stream.options) === 0) return;
      for (const template of stream.templates.values())
        if (template.isOptions === isOptions) remove(stream, template.id);
    },
    all: (): Iterable<Stream> => streams.values(),
    /** What is remembered now. */
    size: () => ({ streams: streams.size, templates, fields }),
  };
}

function withUse(template: Template): KnownTemplate {
  const reader = compileSampleReader(template);
  const has = (some: readonly string[]): boolean => template.fields.some(({ name }) => some.includes(name));
  if (reader !== undefined) return { ...template, reader, use: 'sample' };
  if (template.isOptions) return { ...template, reader, use: 'options' };
  return { ...template, reader, use: has(TOTALS) && !has(DELTAS) ? 'totalOnly' : 'notSample' };
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((octet, at) => octet === b[at]);
}

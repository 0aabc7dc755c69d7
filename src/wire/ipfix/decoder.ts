import { WireError } from '../wire-error.ts';
import { type DataRecord, readDataRecord } from './data-record.ts';
import { createHeldSets } from './held-sets.ts';
import { compileSampleReader, type SampleReader } from './sample-reader.ts';
import type { SampleRecord } from './sample-record.ts';
import { createSequence, type SequenceCounts } from './sequence.ts';
import { decodeTemplate, encodeTemplateSets, OPTIONS_TEMPLATE_SET, TEMPLATE_SET, type Template } from './template.ts';

const VERSION = 10;
const MESSAGE_HEADER = 16;
const SET_HEADER = 4;
const FIRST_DATA_SET = 256;
/** Templates of one stream. Open vSwitch has some 80. */
const MOST_TEMPLATES = 4096;

export interface IpfixDecoderConfig {
  /**
   * `rfc7011`: templates and sequence numbers belong to one observation domain of one transport session.
   * `openvswitch`: to the session alone. Open vSwitch up to 3.1 sends its templates in one domain and uses them in all, all versions count the
   * messages of all domains in one sequence, and an exporter that is set up anew sends the same templates from another port. Each of its data
   * sets has one record.
   */
  readonly dialect: 'rfc7011' | 'openvswitch';
  /** Data sets that are kept until their template comes. Default 16,384. */
  readonly heldSets?: number;
  /** How long they are kept, seconds of the exporter's clock. Default 30. */
  readonly heldSeconds?: number;
  /** Streams (session, or session and domain) that are remembered. Default 256; beyond it the one that was silent longest is forgotten. */
  readonly streams?: number;
}

/** Where a message comes from: one transport session over UDP. */
export interface IpfixSession {
  readonly address: string;
  readonly port: number;
}

/** Templates of one stream, to be kept over a restart of the collector. */
export interface SavedTemplates extends IpfixSession {
  readonly domain: number;
  /** Template sets and options template sets, as in a message. */
  readonly sets: Uint8Array;
}

/** Takes what messages hold. */
export interface IpfixSink {
  readonly samples: SampleRecord[];
  readonly records: DataRecord[];
}

export interface IpfixCounts extends SequenceCounts {
  messages: number;
  /** Data records, samples or not, that were decoded. */
  records: number;
  /** Templates learned, or learned anew with other fields. */
  templates: number;
  withdrawals: number;
  /** Messages that are not IPFIX, or have a part that is not. */
  malformed: number;
  /** Data sets whose template never came. */
  unknownTemplate: number;
}

interface KnownTemplate extends Template {
  readonly reader: SampleReader | undefined;
}

interface Stream {
  readonly session: IpfixSession;
  readonly scope: number;
  readonly templates: Map<number, KnownTemplate>;
  readonly sequence: ReturnType<typeof createSequence>;
}

/** One message under way. */
interface Message {
  readonly session: IpfixSession;
  readonly stream: Stream;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly domain: number;
  readonly exportTime: number;
  readonly sink: IpfixSink;
  /** Data records so far; undefined once some cannot be counted. */
  dataRecords: number | undefined;
}

/** A collector of IPFIX (RFC 7011) from any number of exporters, as a function of messages: it has no socket and no clock. */
export function createIpfixDecoder(config: IpfixDecoderConfig) {
  const { dialect, heldSets = 16_384, heldSeconds = 30, streams: mostStreams = 256 } = config;
  const isOpenvswitch = dialect === 'openvswitch';
  const streams = new Map<string, Stream>();
  const counts: IpfixCounts = {
    messages: 0,
    records: 0,
    templates: 0,
    withdrawals: 0,
    malformed: 0,
    unknownTemplate: 0,
    lost: 0,
    late: 0,
    restarts: 0,
  };
  const held = createHeldSets(heldSets, heldSeconds, (sets) => {
    counts.unknownTemplate += sets;
  });
  // Messages come in runs from one session: the last one's key and stream are at hand.
  let lastAddress = '';
  let lastPort = -1;
  let lastDomain = -1;
  let lastStream: Stream | undefined;

  function streamOf({ address, port }: IpfixSession, domain: number): Stream {
    const scope = isOpenvswitch ? 0 : domain;
    if (lastStream !== undefined && port === lastPort && scope === lastDomain && address === lastAddress)
      return lastStream;
    const key = `${address}|${port}|${scope}`;
    let stream = streams.get(key);
    if (stream === undefined) {
      if (streams.size >= mostStreams) streams.delete(streams.keys().next().value!);
      stream = { session: { address, port }, scope, templates: new Map(), sequence: createSequence(counts) };
    }
    // To the end of the map: its order is that of the last switch to a stream.
    streams.delete(key);
    streams.set(key, stream);
    lastAddress = address;
    lastPort = port;
    lastDomain = scope;
    lastStream = stream;
    return stream;
  }

  function heldKey({ address, port }: IpfixSession, domain: number, template: number): string {
    return isOpenvswitch ? `${address}|${template}` : `${address}|${port}|${domain}|${template}`;
  }

  /**
   * Decodes one message (one datagram) into `sink`. The result says what was wrong with it, if anything was: parts before the fault are in the
   * sink, the rest is counted as malformed.
   */
  function decode(session: IpfixSession, bytes: Uint8Array, sink: IpfixSink): WireError | undefined {
    counts.messages++;
    const error = decodeMessage(session, bytes, sink);
    if (error !== undefined) counts.malformed++;
    return error;
  }

  function decodeMessage(session: IpfixSession, bytes: Uint8Array, sink: IpfixSink): WireError | undefined {
    if (bytes.length < MESSAGE_HEADER) return new WireError('truncated', bytes.length, 'an IPFIX header has 16 octets');
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const version = view.getUint16(0);
    if (version !== VERSION) return new WireError('unsupported', 0, `version ${version} is not IPFIX`);
    const length = view.getUint16(2);
    if (length !== bytes.length)
      return new WireError(
        length > bytes.length ? 'truncated' : 'length',
        2,
        `a message of ${length} octets in ${bytes.length}`,
      );
    const exportTime = view.getUint32(4);
    const number = view.getUint32(8);
    const domain = view.getUint32(12);
    const stream = streamOf(session, domain);
    const message: Message = { session, stream, bytes, view, domain, exportTime, sink, dataRecords: 0 };
    held.expire(exportTime);
    const error = decodeSets(message, MESSAGE_HEADER);
    stream.sequence.note(number, error === undefined ? message.dataRecords : undefined, exportTime);
    return error;
  }

  function decodeSets(message: Message, start: number): WireError | undefined {
    const { bytes, view } = message;
    let at = start;
    while (at < bytes.length) {
      if (bytes.length - at < SET_HEADER) return new WireError('truncated', at, 'a set header is cut');
      const id = view.getUint16(at);
      const length = view.getUint16(at + 2);
      if (length < SET_HEADER || at + length > bytes.length)
        return new WireError('length', at + 2, `a set of ${length} octets does not fit`);
      const error = decodeSet(message, id, at + SET_HEADER, at + length);
      if (error !== undefined) return error;
      at += length;
    }
    return undefined;
  }

  function decodeSet(message: Message, id: number, at: number, end: number): WireError | undefined {
    if (id === TEMPLATE_SET || id === OPTIONS_TEMPLATE_SET) return learn(message, at, end, id === OPTIONS_TEMPLATE_SET);
    if (id < FIRST_DATA_SET) return new WireError('unsupported', at - SET_HEADER, `set id ${id} is reserved`);
    const template = message.stream.templates.get(id);
    if (template !== undefined) return decodeData(message, template, at, end);
    const { session, bytes, domain, exportTime } = message;
    held.add(heldKey(session, domain, id), { bytes: bytes.slice(at, end), domain, exportTime });
    // Open vSwitch sends one record a set; of others nobody knows how many these are.
    if (message.dataRecords !== undefined) message.dataRecords = isOpenvswitch ? message.dataRecords + 1 : undefined;
    return undefined;
  }

  function learn(message: Message, start: number, end: number, isOptions: boolean): WireError | undefined {
    const { stream, view } = message;
    let at = start;
    // Up to 3 octets of padding may follow (RFC 7011 section 3.3.1).
    while (end - at >= 4) {
      const decoded = decodeTemplate(view, at, end, isOptions);
      if (decoded instanceof WireError) return decoded;
      at = decoded.end;
      const { record } = decoded;
      if ('withdrawn' in record) withdraw(stream, record.withdrawn, isOptions);
      else if (stream.templates.size >= MOST_TEMPLATES && !stream.templates.has(record.id))
        return new WireError('unsupported', at, `more than ${MOST_TEMPLATES} templates`);
      else define(message, record);
    }
    return undefined;
  }

  /** RFC 7011 section 8.1: the set's own id stands for all templates of its kind. */
  function withdraw({ templates }: Stream, id: number, isOptions: boolean): void {
    counts.withdrawals++;
    const all = isOptions ? OPTIONS_TEMPLATE_SET : TEMPLATE_SET;
    if (id !== all) templates.delete(id);
    else
      for (const template of templates.values())
        if (template.scopeCount > 0 === isOptions) templates.delete(template.id);
  }

  function define({ session, stream, domain, sink }: Message, template: Template): void {
    const old = stream.templates.get(template.id);
    if (old === undefined || !isSame(old.bytes, template.bytes)) {
      counts.templates++;
      stream.templates.set(template.id, { ...template, reader: compileSampleReader(template) });
    }
    if (held.count === 0) return;
    const known = stream.templates.get(template.id)!;
    for (const set of held.take(heldKey(session, domain, template.id))) {
      const { bytes, exportTime } = set;
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const message = { session, stream, bytes, view, domain: set.domain, exportTime, sink, dataRecords: 0 };
      if (decodeData(message, known, 0, bytes.length) !== undefined) counts.malformed++;
    }
  }

  function decodeData(message: Message, template: KnownTemplate, start: number, end: number): WireError | undefined {
    const { view, domain, exportTime, sink } = message;
    const { leastLength, reader } = template;
    let at = start;
    let records = 0;
    let error: WireError | undefined;
    // What is too short for a record is padding.
    while (end - at >= leastLength) {
      if (reader !== undefined) {
        const sample = reader.read(view, at, end, domain, exportTime);
        if (sample === undefined) error = new WireError('length', at, `a record of template ${template.id} is cut`);
        else sink.samples.push(sample);
        at += reader.length;
      } else {
        const read = readDataRecord(template, view, at, end);
        if (read === undefined) error = new WireError('length', at, `a record of template ${template.id} is cut`);
        else {
          const { id, scopeCount } = template;
          sink.records.push({ domain, template: id, exportTime, scopeCount, values: read.values });
          at = read.end;
        }
      }
      if (error !== undefined) break;
      records++;
    }
    counts.records += records;
    if (message.dataRecords !== undefined) message.dataRecords += records;
    return error;
  }

  return {
    counts: counts as Readonly<IpfixCounts>,
    /** Data sets that wait for their template now. */
    get held(): number {
      return held.count;
    },
    decode,
    /**
     * All templates that are known. A collector that begins anew and is given them by `restore` reads on where this one ended, for as long as the
     * exporter sends from the same port: it then is the same exporter.
     */
    save: (): readonly SavedTemplates[] =>
      [...streams.values()].map(({ session, scope, templates }) => ({
        ...session,
        domain: scope,
        sets: encodeTemplateSets([...templates.values()]),
      })),
    /** Takes what `save` gave; the error says what was wrong with it, as with a message. */
    restore({ address, port, domain, sets }: SavedTemplates): WireError | undefined {
      const session = { address, port };
      const stream = streamOf(session, domain);
      const view = new DataView(sets.buffer, sets.byteOffset, sets.byteLength);
      const sink: IpfixSink = { samples: [], records: [] };
      return decodeSets({ session, stream, bytes: sets, view, domain, exportTime: 0, sink, dataRecords: 0 }, 0);
    },
  };
}

export type IpfixDecoder = ReturnType<typeof createIpfixDecoder>;

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((octet, at) => octet === b[at]);
}

import { WireError, type WireErrorCode } from '../wire-error.ts';
import { createIpfixCounts, type IpfixCounts, type MalformedReason } from './counts.ts';
import { type DataRecord, readDataRecord } from './data-record.ts';
import { createFlowTimes } from './flow-times.ts';
import { createHeldSets } from './held-sets.ts';
import { isZero } from './octets.ts';
import type { SampleContext } from './sample-reader.ts';
import { isPossible, type SampleRecord } from './sample-record.ts';
import type { SequenceState } from './sequence.ts';
import { createStreams, type IpfixSession, type KnownTemplate, type Stream } from './streams.ts';
import { decodeTemplate, encodeTemplateSets, OPTIONS_TEMPLATE_SET, TEMPLATE_SET } from './template.ts';

const VERSION = 10;
const MESSAGE_HEADER = 16;
const SET_HEADER = 4;
const FIRST_DATA_SET = 256;
/** Values of one datagram: 4,096 samples, or as many values of other records as its octets can hold. Some 20 MB while it is under way. */
const MOST_VALUES = 131_072;
/** What a sample counts for among them. */
const SAMPLE_VALUES = 32;

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
  /** Octets of all of them. Default 8 MiB: a set of Open vSwitch has some 250. */
  readonly heldOctets?: number;
  /** How long they are kept, seconds from their arrival. Default 30. */
  readonly heldSeconds?: number;
  /** Streams (session, or session and domain) that are remembered. Default 256; beyond it the one that was silent longest is forgotten. */
  readonly streams?: number;
  /** Templates of one stream. Default 4,096: Open vSwitch has some 80. All streams together may have four times as many. */
  readonly templates?: number;
  /** Fields of all templates of one stream. Default 65,536: Open vSwitch has some 4,000. All streams together may have four times as many. */
  readonly fields?: number;
}

/** Templates and sequence numbers of one stream, to be kept over a restart of the collector. */
export interface SavedStream extends IpfixSession {
  readonly domain: number;
  /** Template sets and options template sets, as in a message. */
  readonly sets: Uint8Array;
  /** What the stream goes on with; without it nothing is known of what was lost in between. */
  readonly sequence?: SequenceState;
}

/** Takes what messages hold. */
export interface IpfixSink {
  readonly samples: SampleRecord[];
  readonly records: DataRecord[];
}

/** One message under way. */
interface Message extends SampleContext {
  readonly session: IpfixSession;
  readonly stream: Stream;
  readonly view: DataView;
  readonly sink: IpfixSink;
  /** How many values it may still have. */
  readonly room: { values: number };
  /** Data records so far; undefined once some cannot be counted. */
  dataRecords: number | undefined;
}

/**
 * A collector of IPFIX (RFC 7011) from any number of exporters, as a function of messages: it has no socket and no clock. Its memory is bounded,
 * whatever is sent to it: `size` tells what it has taken of the limits in its configuration.
 */
export function createIpfixDecoder(config: IpfixDecoderConfig) {
  const { dialect, heldSets = 16_384, heldOctets = 8 * 1024 * 1024, heldSeconds = 30 } = config;
  const isOpenvswitch = dialect === 'openvswitch';
  const counts = createIpfixCounts();
  const times = createFlowTimes(counts);
  const streams = createStreams(
    { streams: config.streams ?? 256, templates: config.templates ?? 4096, fields: config.fields ?? 65_536 },
    counts,
  );
  const held = createHeldSets(
    { sets: heldSets, octets: heldOctets, seconds: heldSeconds },
    {
      expired(sets) {
        counts.unknownTemplate += sets;
      },
      refused() {
        counts.heldFull++;
      },
    },
  );

  /** What a datagram may still have, and what has waited for its templates. */
  const room = { values: 0 };
  const heldRoom = { values: 0 };

  const streamOf = (session: IpfixSession, domain: number, saved?: SequenceState): Stream =>
    streams.of(session, isOpenvswitch ? 0 : domain, saved);

  function heldKey({ address, port }: IpfixSession, domain: number, template: number): string {
    return isOpenvswitch ? `${address}|${template}` : `${address}|${port}|${domain}|${template}`;
  }

  function count(reason: MalformedReason, error: WireError): WireError {
    counts.malformed++;
    counts.malformedBy[reason]++;
    return error;
  }
  const refuse = (reason: MalformedReason, code: WireErrorCode, at: number, says: string): WireError =>
    count(reason, new WireError(code, at, says));

  /**
   * Decodes the messages of one datagram, of which there should be one, into `sink`. `arrival`: microseconds since the epoch. The result says what was
   * wrong, if anything was: parts before the fault are in the sink, the rest of the datagram is counted as malformed.
   */
  function decode(session: IpfixSession, bytes: Uint8Array, sink: IpfixSink, arrival: number): WireError | undefined {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    held.expire(arrival);
    room.values = MOST_VALUES;
    heldRoom.values = Math.max(MOST_VALUES, heldSets * SAMPLE_VALUES);
    let at = 0;
    do {
      counts.messages++;
      const end = decodeMessage(session, view, at, sink, arrival);
      if (typeof end !== 'number') return end;
      at = end;
    } while (at < bytes.length && isHeader(view, at));
    if (at === bytes.length) return undefined;
    return refuse('length', 'length', at, `${bytes.length - at} octets behind the end of the message`);
  }

  /** Decodes the message that begins at `start`; the result is where it ends. */
  function decodeMessage(
    session: IpfixSession,
    view: DataView,
    start: number,
    sink: IpfixSink,
    arrival: number,
  ): number | WireError {
    const octets = view.byteLength - start;
    if (octets < MESSAGE_HEADER) return refuse('header', 'truncated', view.byteLength, 'an IPFIX header has 16 octets');
    const version = view.getUint16(start);
    if (version !== VERSION) return refuse('header', 'unsupported', start, `version ${version} is not IPFIX`);
    const length = view.getUint16(start + 2);
    if (length < MESSAGE_HEADER) return refuse('header', 'length', start + 2, `a message of ${length} octets`);
    const exportTime = view.getUint32(start + 4);
    const number = view.getUint32(start + 8);
    const domain = view.getUint32(start + 12);
    const stream = streamOf(session, domain);
    const message: Message = { session, view, sink, arrival, room, stream, domain, exportTime, dataRecords: 0 };
    const result = decodeSets(message, start + MESSAGE_HEADER, start + length);
    stream.sequence.note(number, typeof result === 'number' ? message.dataRecords : undefined, exportTime, arrival);
    return result;
  }

  /** Whether another message may begin at `at`. */
  function isHeader(view: DataView, at: number): boolean {
    if (view.byteLength - at < MESSAGE_HEADER) return false;
    return view.getUint16(at) === VERSION && view.getUint16(at + 2) >= MESSAGE_HEADER;
  }

  /** Decodes sets up to `end`, which the last of them should reach, or up to the end of all; the result is `end`. */
  function decodeSets(message: Message, start: number, end: number): number | WireError {
    const { view } = message;
    const last = Math.min(end, view.byteLength);
    let at = start;
    while (at < last) {
      if (last - at < SET_HEADER) return refuse(end > last ? 'length' : 'set', 'truncated', at, 'a set header is cut');
      const id = view.getUint16(at);
      const length = view.getUint16(at + 2);
      const setEnd = at + length;
      // Some exporters leave padding out of the message's length: then the set counts, unless it would run into another message.
      const isIn = setEnd <= last || (setEnd <= view.byteLength && !isHeader(view, end));
      if (length < SET_HEADER || !isIn) {
        const isCut = setEnd > view.byteLength && end > view.byteLength;
        if (isCut) return refuse('length', 'truncated', at + 2, `a message of ${end - view.byteLength} octets more`);
        return refuse('set', 'length', at + 2, `a set of ${length} octets does not fit`);
      }
      const error = decodeSet(message, id, at + SET_HEADER, setEnd);
      if (error !== undefined) return error;
      if (setEnd > end)
        return refuse('length', 'length', at + 2, `a set ends ${setEnd - end} octets behind its message`);
      at = setEnd;
    }
    if (at < end) return refuse('length', 'truncated', at, `${end - at} octets of the message are missing`);
    return end;
  }

  function decodeSet(message: Message, id: number, at: number, end: number): WireError | undefined {
    if (id === TEMPLATE_SET || id === OPTIONS_TEMPLATE_SET) return learn(message, at, end, id === OPTIONS_TEMPLATE_SET);
    if (id < FIRST_DATA_SET) return refuse('set', 'unsupported', at - SET_HEADER, `set id ${id} is reserved`);
    const template = message.stream.templates.get(id);
    if (template !== undefined) return decodeData(message, template, at, end);
    // There is no record in it, whatever the template.
    if (at === end) return undefined;
    const { session, view, domain, exportTime, arrival } = message;
    const bytes = new Uint8Array(view.buffer, view.byteOffset + at, end - at).slice();
    held.add(heldKey(session, domain, id), { bytes, domain, exportTime, arrival });
    // Open vSwitch sends one record a set; of others nobody knows how many these are.
    if (message.dataRecords !== undefined) message.dataRecords = isOpenvswitch ? message.dataRecords + 1 : undefined;
    return undefined;
  }

  function learn(message: Message, start: number, end: number, isOptions: boolean): WireError | undefined {
    const { stream, view } = message;
    let at = start;
    // Padding may follow (RFC 7011 section 3.3.1), less than a template takes; some exporters send more.
    while (!isZero(view, at, end)) {
      if (end - at < 4) return refuse('left_over', 'value', at, 'what follows the templates is no padding');
      const decoded = decodeTemplate(view, at, end, isOptions);
      if (decoded instanceof WireError) return count('template', decoded);
      const { record } = decoded;
      if ('withdrawn' in record) withdraw(stream, record.withdrawn, isOptions);
      else {
        const known = streams.define(stream, record);
        if (known === undefined)
          return refuse('templates', 'unsupported', at, 'more templates or fields than a stream may have');
        decodeHeld(message, known);
      }
      at = decoded.end;
    }
    return undefined;
  }

  /** RFC 7011 section 8.1: the set's own id stands for all templates of its kind. */
  function withdraw(stream: Stream, id: number, isOptions: boolean): void {
    counts.withdrawals++;
    const all = isOptions ? OPTIONS_TEMPLATE_SET : TEMPLATE_SET;
    if (id === all) streams.withdrawAll(stream, isOptions);
    else streams.withdraw(stream, id);
  }

  /** What has waited for a template; it may have as many values as if each set held a sample, as those of Open vSwitch do. */
  function decodeHeld({ session, stream, domain, sink }: Message, template: KnownTemplate): void {
    if (held.count === 0) return;
    for (const set of held.take(heldKey(session, domain, template.id))) {
      const { bytes } = set;
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      decodeData({ ...set, session, stream, view, sink, room: heldRoom, dataRecords: 0 }, template, 0, bytes.length);
    }
  }

  function decodeData(message: Message, template: KnownTemplate, start: number, end: number): WireError | undefined {
    const { view, sink, room } = message;
    const { samples, records } = sink;
    const samplesBefore = samples.length;
    const recordsBefore = records.length;
    const impossibleBefore = counts.impossible;
    let at = start;
    let found = 0;
    // What is too short for a record is padding.
    while (end - at >= template.leastLength) {
      // How many more there are is not known.
      if (room.values <= 0) {
        countRecords(message, template, found, counts.impossible - impossibleBefore);
        return refuse('values', 'unsupported', at, 'more values than a datagram may have');
      }
      const next = decodeRecord(message, template, at, end);
      const isCut = next === undefined;
      // Padding is of zeros and shorter than a record: else this set is of a template of that id which did not come yet.
      if (isCut || (end - next < template.leastLength && !isZero(view, next, end))) {
        samples.length = samplesBefore;
        records.length = recordsBefore;
        counts.impossible = impossibleBefore;
        if (isCut) return refuse('record', 'length', at, `a record of template ${template.id} is cut`);
        return refuse('left_over', 'value', next, `what follows the records of template ${template.id} is no padding`);
      }
      at = next;
      found++;
    }
    if (found === 0 && !isZero(view, at, end))
      return refuse('record', 'length', at, `a record of template ${template.id} is cut`);
    countRecords(message, template, found, counts.impossible - impossibleBefore);
    return undefined;
  }

  function countRecords(message: Message, { use }: KnownTemplate, found: number, impossible: number): void {
    counts.records += found - impossible;
    if (use === 'totalOnly' || use === 'notSample') counts[use] += found;
    if (message.dataRecords !== undefined) message.dataRecords += found;
  }

  /** Puts the record at `at` into the sink; the result is where it ends, undefined where that is behind `end`. */
  function decodeRecord(message: Message, template: KnownTemplate, at: number, end: number): number | undefined {
    const { view, sink, room, domain, exportTime } = message;
    const { id, reader, scopeCount } = template;
    if (reader !== undefined) {
      room.values -= SAMPLE_VALUES;
      const sample = reader.read(view, at, end, message, times);
      if (sample === undefined) return undefined;
      if (isPossible(sample)) sink.samples.push(sample);
      else counts.impossible++;
      return at + reader.length;
    }
    const read = readDataRecord(template, view, at, end);
    if (read === undefined) return undefined;
    room.values -= Math.max(1, read.values.length);
    sink.records.push({ domain, template: id, exportTime, scopeCount, values: read.values });
    return read.end;
  }

  return {
    counts: counts as Readonly<IpfixCounts>,
    decode,
    /** Data sets that wait for their template. */
    get held(): number {
      return held.count;
    },
    /** What is remembered now. */
    size: () => ({ ...streams.size(), heldSets: held.count, heldOctets: held.octets }),
    /**
     * All that is known of streams. A collector that begins anew and is given them by `restore` reads on where this one ended, for as long as the
     * exporter sends from the same port: it then is the same exporter.
     */
    save: (): readonly SavedStream[] =>
      [...streams.all()].map(({ session, scope, templates, sequence }) => ({
        ...session,
        domain: scope,
        sets: encodeTemplateSets([...templates.values()]),
        ...(sequence.state !== undefined && { sequence: sequence.state }),
      })),
    /** Takes what `save` gave; the error says what was wrong with it, as with a message. */
    restore({ address, port, domain, sets, sequence }: SavedStream): WireError | undefined {
      const session = { address, port };
      const stream = streamOf(session, domain, sequence);
      const view = new DataView(sets.buffer, sets.byteOffset, sets.byteLength);
      const sink: IpfixSink = { samples: [], records: [] };
      const rest = { exportTime: 0, arrival: 0, sink, room, dataRecords: 0 };
      const result = decodeSets({ session, stream, view, domain, ...rest }, 0, sets.length);
      return result instanceof WireError ? result : undefined;
    },
  };
}

export type IpfixDecoder = ReturnType<typeof createIpfixDecoder>;

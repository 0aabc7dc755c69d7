import { domainOf, FIRST_RULE, OBSERVATIONS } from '../../src/model/datapath.ts';
import { FLOW_COLUMNS } from '../../src/model/flow.ts';
import { createJoin } from '../../src/probe/flows/join.ts';
import { createIdentityHistory } from '../../src/probe/identity/history.ts';
import type { DataRecord } from '../../src/wire/ipfix/data-record.ts';
import { createIpfixDecoder } from '../../src/wire/ipfix/decoder.ts';
import type { SampleRecord } from '../../src/wire/ipfix/sample-record.ts';
import { createBlockWriter } from '../../src/wire/native/block-writer.ts';
import type { BenchCase, Result } from '../bench-case.ts';
import { TEMPLATE_MESSAGES, tcpDatagram } from '../ipfix-datagrams.ts';
import { DIRECTORY, ENDPOINT_LIST, ENDPOINTS, HERE, LOCAL, RULE_NAMES, RULES } from '../rows-world.ts';
import { result } from '../statistics.ts';

const CONNECTIONS = 20_000;
const WARM_UP_RUNS = 3;
const RUNS = 9;
const BLOCK_ROWS = 2000;
/** Datagrams that one turn of the loop reads. */
const TURN = 64;
const SESSION = { address: '127.0.0.1', port: 4739 };
const NOW = 1_800_000_000_000_000;
const HOLD_US = 1_000_000;
const ROUTER_MAC = 0x0a_53_00_00_00_01;

/**
 * A host's flow rows as its agent makes them, on one thread with no socket and no compression: datagrams of Open vSwitch in, Native blocks of 2,000 rows
 * out. A figure counts the CPU time of the whole process, so collector threads of the garbage are in it and other users of the machine are not.
 *
 * `new`: each connection has just begun (three records a row: sent, received, and the rule that let it in). `lasting`: all of them are known (two records a row).
 */
export const rows: BenchCase = {
  name: 'rows',
  run: async () => ['new', 'lasting'].flatMap((kind) => measure(kind === 'new')),
};

function measure(isNew: boolean): Result[] {
  const kind = isNew ? 'new' : 'lasting';
  const datagrams = makeDatagrams(isNew);
  const decoded = decode(datagrams);
  if (decoded.length !== datagrams.length) throw new Error(`${decoded.length} of ${datagrams.length} records decoded`);
  // Lasting connections are those of one join that has met them.
  const pipeline = createPipeline();
  const next = (): Pipeline => (isNew ? createPipeline() : pipeline);
  pipeline.take(decoded);
  pipeline.flush();

  const figures = { both: [] as number[], decoding: [] as number[], joining: [] as number[] };
  for (let run = -WARM_UP_RUNS; run < RUNS; run++) {
    const first = next();
    const both = cpuMicros(() => {
      decode(datagrams, first.take);
      return first.flush();
    });
    const decoding = cpuMicros(() => {
      decode(datagrams, () => {});
      return CONNECTIONS;
    });
    const second = next();
    const joining = cpuMicros(() => {
      second.take(decoded);
      return second.flush();
    });
    if (run < 0) continue;
    figures.both.push(both);
    figures.decoding.push(decoding);
    figures.joining.push(joining);
  }
  const name = `rows, ${kind} connections`;
  const rates = figures.both.map((micros) => 1e6 / micros);
  return [
    result(name, 'rows/s a core', rates),
    result(`${name}: all of it`, 'us/row', figures.both),
    result(`${name}: decoding`, 'us/row', figures.decoding),
    result(`${name}: join and encoding`, 'us/row', figures.joining, ['under', 8]),
  ];
}

/** CPU time a row, microseconds. */
function cpuMicros(work: () => number): number {
  const before = process.cpuUsage();
  const made = work();
  const { user, system } = process.cpuUsage(before);
  if (made !== CONNECTIONS) throw new Error(`${made} rows instead of ${CONNECTIONS}`);
  return (user + system) / made;
}

/** Decodes all datagrams as the probe's source does, those of one turn at a time. Without a taker all samples come back. */
function decode(datagrams: readonly Uint8Array[], take?: (samples: readonly SampleRecord[]) => void): SampleRecord[] {
  const decoder = createIpfixDecoder({ dialect: 'openvswitch' });
  const records: DataRecord[] = [];
  let samples: SampleRecord[] = [];
  const read = (bytes: Uint8Array): void => {
    const error = decoder.decode(SESSION, bytes, { samples, records }, NOW);
    if (error !== undefined) throw error;
  };
  for (const bytes of TEMPLATE_MESSAGES) read(bytes);
  datagrams.forEach((bytes, at) => {
    read(bytes);
    if (take === undefined || at % TURN !== TURN - 1) return;
    take(samples);
    samples = [];
  });
  take?.(samples);
  return samples;
}

type Pipeline = ReturnType<typeof createPipeline>;

/** The part of the probe's recorder between records and blocks. */
function createPipeline() {
  const join = createJoin(
    { epoch: 0, host: 'h1', encapAddress: HERE, holdUs: HOLD_US, idleUs: 120_000_000 },
    {
      directory: () => DIRECTORY,
      rule: (number) => RULE_NAMES[number - FIRST_RULE],
    },
  );
  const identities = createIdentityHistory('h1');
  const writer = createBlockWriter(FLOW_COLUMNS);
  let octets = 0;
  const close = (): void => {
    octets += writer.finish().length;
    writer.reset();
  };
  return {
    take(samples: readonly SampleRecord[]): void {
      for (const sample of samples) join.add(sample, NOW);
    },
    /** Returns how many rows were written. */
    flush(): number {
      octets = 0;
      const made = join.flush(NOW + HOLD_US, (row) => {
        writer.appendRow(row);
        identities.see(row);
        if (writer.rows >= BLOCK_ROWS) close();
      });
      if (writer.rows > 0) close();
      if (octets < 100 * made) throw new Error(`${octets} octets are too few for ${made} rows`);
      return made;
    },
  };
}

/** Records of connections from local vNICs to others anywhere, in the order in which caches export: by age, so both directions stand apart. */
function makeDatagrams(isNew: boolean): readonly Uint8Array[] {
  const connections = Array.from({ length: CONNECTIONS }, (_, at) => {
    const local = at % LOCAL;
    const peer = LOCAL + ((at * 7919) % (ENDPOINTS - LOCAL));
    return {
      port: local + 1,
      rule: FIRST_RULE + (at % RULES),
      mac: ENDPOINT_LIST[local]!.mac,
      address: 0x0a0a0000 + local,
      peer: 0x0a0a0000 + peer,
      // Each (address, port) pair is used once.
      clientPort: 32_768 + Math.floor(at / LOCAL),
      serverPort: 5432 + (at % 3),
      packets: 5 + (at % 50),
    };
  });
  const datagrams: Uint8Array[] = [];
  const push = (record: Parameters<typeof tcpDatagram>[0]): void => {
    datagrams.push(tcpDatagram(record, TEMPLATE_MESSAGES.length + datagrams.length));
  };
  const BURST = 200;
  for (let first = 0; first < CONNECTIONS; first += BURST) {
    const burst = connections.slice(first, first + BURST);
    const forward = burst.map((one) => ({
      domain: domainOf(OBSERVATIONS.received, one.port),
      point: 0,
      sourceMac: one.mac,
      destinationMac: ROUTER_MAC,
      source: one.address,
      destination: one.peer,
      sourcePort: one.clientPort,
      destinationPort: one.serverPort,
      octets: one.packets * 400,
      packets: one.packets,
    }));
    for (const record of forward) push(record);
    if (isNew)
      forward.forEach((record, at) => {
        push({
          ...record,
          domain: domainOf(OBSERVATIONS.egressAllow, burst[at]!.port),
          point: burst[at]!.rule,
          octets: 74,
          packets: 1,
        });
      });
    burst.forEach((one, at) => {
      const { source, destination, sourcePort, destinationPort } = forward[at]!;
      push({
        domain: domainOf(OBSERVATIONS.delivered, one.port),
        point: 0,
        sourceMac: ROUTER_MAC,
        destinationMac: one.mac,
        source: destination,
        destination: source,
        sourcePort: destinationPort,
        destinationPort: sourcePort,
        octets: one.packets * 900,
        packets: one.packets,
      });
    });
  }
  return datagrams;
}

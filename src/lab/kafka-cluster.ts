import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SondeError } from '../model/errors.ts';
import { kafkaJars } from './kafka-jars.ts';

export interface KafkaClusterConfig {
  /** For the brokers' logs and settings; must exist and be empty. */
  readonly directory: string;
  /** 1 or 3; each is broker and controller. */
  readonly brokers: number;
  /** Ports that clients use; default: free ones. */
  readonly ports?: readonly number[];
  /** Users of a second port of each broker, which asks for SASL PLAIN or SCRAM-SHA-256. */
  readonly users?: Readonly<Record<string, string>>;
  /** Files in PEM for ports with TLS: the brokers' key and certificate in one, and the authority of clients' certificates. */
  readonly tls?: { readonly keystore: string; readonly truststore: string };
}

export interface KafkaBroker {
  /** Port on 127.0.0.1. */
  readonly port: number;
  /** Port with SASL, where there are users. */
  readonly saslPort: number;
  /** Ports with TLS, where there are certificates: for everybody, for clients with a certificate, and with SASL for users. */
  readonly tlsPort: number;
  readonly mutualTlsPort: number;
  readonly saslTlsPort: number;
  readonly isRunning: boolean;
  /** Resolves when it answers. */
  start(): Promise<void>;
  /** By SIGTERM (leaders move first) or SIGKILL. */
  stop(signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>;
}

const START_MS = 60_000;
const CONTROLLED_STOP_MS = 20_000;
/** A broker for tests: small, and quick to start rather than fast. */
const JAVA = ['-Xms128m', '-Xmx384m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Xshare:auto'];

/** Apache Kafka in KRaft mode on loopback, as the tests, the benchmarks and `sonde lab kafka` use it. Inert until `start`. */
export async function createKafkaCluster(config: KafkaClusterConfig) {
  const { directory, brokers: count, users, tls } = config;
  const jars = await kafkaJars();
  const free = await freePorts(count * 6);
  const take = (): number[] => free.splice(0, count);
  const ports = config.ports ?? take();
  const [controllers, saslPorts, tlsPorts, mutualTlsPorts, saslTlsPorts] = [take(), take(), take(), take(), take()];
  const clusterId = newClusterId();
  const java = (main: string, ...args: string[]): string[] => [...JAVA, '-cp', `${jars}/*`, main, ...args];
  const brokers: KafkaBroker[] = [];
  for (let i = 0; i < count; i++) brokers.push(await createBroker(i));

  async function createBroker(i: number): Promise<KafkaBroker> {
    const folder = join(directory, `broker-${i + 1}`);
    const settings = join(folder, 'server.properties');
    await mkdir(folder, { recursive: true });
    await writeFile(settings, settingsOf(i, folder));
    const scram = Object.entries(users ?? {}).flatMap(([name, password]) => [
      '--add-scram',
      `SCRAM-SHA-256=[name=${name},password=${password}]`,
    ]);
    await command(
      java('kafka.tools.StorageTool', 'format', '-t', clusterId, '-c', settings, ...scram),
      join(folder, 'format.log'),
    );
    let child: ChildProcess | undefined;
    let exited: Promise<unknown> = Promise.resolve();
    return {
      port: ports[i] as number,
      saslPort: saslPorts[i] as number,
      tlsPort: tlsPorts[i] as number,
      mutualTlsPort: mutualTlsPorts[i] as number,
      saslTlsPort: saslTlsPorts[i] as number,
      get isRunning() {
        return child !== undefined;
      },
      async start() {
        const log = join(folder, 'broker.log');
        const started = spawnLogged(java('kafka.Kafka', settings), log);
        child = started;
        exited = once(started, 'exit').finally(() => {
          if (child === started) child = undefined;
        });
        for (const end = Date.now() + START_MS; !(await answers(ports[i] as number)); await sleep(50)) {
          if (child === started && Date.now() < end) continue;
          const why = (await readFile(log, 'utf8').catch(() => '')).trim().split('\n').slice(-3).join(' | ');
          throw new SondeError('LAB_COMMAND_FAILED', { what: 'start Kafka', command: 'java kafka.Kafka', why });
        }
      },
      async stop(signal = 'SIGKILL') {
        const stopping = child;
        if (stopping === undefined) return;
        stopping.kill(signal);
        const limit = setTimeout(() => stopping.kill('SIGKILL'), CONTROLLED_STOP_MS);
        await exited;
        clearTimeout(limit);
      },
    };
  }

  function settingsOf(i: number, folder: string): string {
    const replicas = Math.min(3, count);
    const listeners = [
      `PLAINTEXT://127.0.0.1:${ports[i]}`,
      ...(users === undefined ? [] : [`SASL_PLAINTEXT://127.0.0.1:${saslPorts[i]}`]),
      ...(tls === undefined ? [] : [`TLS://127.0.0.1:${tlsPorts[i]}`, `MUTUAL://127.0.0.1:${mutualTlsPorts[i]}`]),
      ...(tls === undefined || users === undefined ? [] : [`SASL_TLS://127.0.0.1:${saslTlsPorts[i]}`]),
    ];
    const plainUsers = Object.entries(users ?? {}).map(([name, password]) => `user_${name}="${password}"`);
    const lines = {
      'process.roles': 'broker,controller',
      'node.id': i + 1,
      'controller.quorum.voters': controllers.map((port, j) => `${j + 1}@127.0.0.1:${port}`).join(','),
      'controller.listener.names': 'CONTROLLER',
      listeners: [...listeners, `CONTROLLER://127.0.0.1:${controllers[i]}`].join(','),
      'advertised.listeners': listeners.join(','),
      'listener.security.protocol.map':
        'CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,TLS:SSL,MUTUAL:SSL,SASL_TLS:SASL_SSL',
      'log.dirs': join(folder, 'data'),
      'default.replication.factor': replicas,
      'min.insync.replicas': Math.max(1, replicas - 1),
      'offsets.topic.replication.factor': replicas,
      'offsets.topic.num.partitions': 4,
      'transaction.state.log.replication.factor': replicas,
      'transaction.state.log.min.isr': Math.max(1, replicas - 1),
      'transaction.state.log.num.partitions': 4,
      'share.coordinator.state.topic.replication.factor': replicas,
      'share.coordinator.state.topic.min.isr': 1,
      'auto.create.topics.enable': 'false',
      'group.initial.rebalance.delay.ms': 0,
      'broker.session.timeout.ms': 3000,
      'broker.heartbeat.interval.ms': 500,
      // A broker whose disk or memory is small.
      'log.cleaner.dedupe.buffer.size': 16 * 1024 * 1024,
      'num.recovery.threads.per.data.dir': 1,
      ...(users === undefined
        ? {}
        : {
            'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256',
            'listener.name.sasl_plaintext.plain.sasl.jaas.config': `org.apache.kafka.common.security.plain.PlainLoginModule required ${plainUsers.join(' ')};`,
            'listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config':
              'org.apache.kafka.common.security.scram.ScramLoginModule required;',
            'listener.name.sasl_tls.sasl.enabled.mechanisms': 'SCRAM-SHA-256',
            'listener.name.sasl_tls.scram-sha-256.sasl.jaas.config':
              'org.apache.kafka.common.security.scram.ScramLoginModule required;',
          }),
      ...(tls === undefined
        ? {}
        : {
            'ssl.keystore.type': 'PEM',
            'ssl.keystore.location': tls.keystore,
            'ssl.truststore.type': 'PEM',
            'ssl.truststore.location': tls.truststore,
            'listener.name.mutual.ssl.client.auth': 'required',
          }),
    };
    return Object.entries(lines)
      .map(([name, value]) => `${name}=${value}\n`)
      .join('');
  }

  return {
    brokers: brokers as readonly KafkaBroker[],
    /** For clients, `HOST:PORT` each. */
    addresses: ports.map((port) => `127.0.0.1:${port}`) as readonly string[],
    start: async (): Promise<void> => void (await Promise.all(brokers.map((broker) => broker.start()))),
    stop: async (): Promise<void> => void (await Promise.all(brokers.map((broker) => broker.stop()))),
  };
}

export type KafkaCluster = Awaited<ReturnType<typeof createKafkaCluster>>;

/** 16 octets as base64url. It must not begin with `-`, as one in 64 would: Kafka's tool takes that for an option. */
function newClusterId(): string {
  const octets = randomBytes(16);
  octets[0] = (octets[0] as number) & 0x7f;
  return octets.toString('base64url');
}

function spawnLogged(argv: readonly string[], log: string): ChildProcess {
  const file = openSync(log, 'a');
  try {
    return spawn('java', [...argv], { stdio: ['ignore', file, file] });
  } finally {
    closeSync(file);
  }
}

async function command(argv: readonly string[], log: string): Promise<void> {
  const [code] = await once(spawnLogged(argv, log), 'exit');
  if (code === 0) return;
  const why = (await readFile(log, 'utf8').catch(() => '')).trim().slice(-300);
  throw new SondeError('LAB_COMMAND_FAILED', { what: 'prepare Kafka', command: `java ${argv.at(5)}`, why });
}

async function answers(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

/** Held all at once, so that no two are the same. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  await Promise.all(servers.map((server) => once(server.listen(0, '127.0.0.1'), 'listening')));
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(servers.map((server) => once(server.close(), 'close')));
  return ports;
}

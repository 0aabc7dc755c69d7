import { hostname } from 'node:os';
import type { ValueTypeName } from './value-types.ts';

export const PROCESSES = ['agent', 'server', 'client'] as const;
export type ProcessName = (typeof PROCESSES)[number];

/** A default that is known at run time only. */
interface DerivedDefault {
  /** For the documentation. */
  readonly says: string;
  /** @param config the options that stand before this one in the table, as text */
  readonly of: (config: Readonly<Record<string, string>>) => string;
}

export interface OptionSpec {
  readonly for: readonly ProcessName[];
  /** A type of value-types.ts, or the words that it may be. */
  readonly type: ValueTypeName | readonly string[];
  /** As people write it. Absent: the option may be left out. */
  readonly default?: string | DerivedDefault;
  /** Not shown by `sonde config`, in the log or in an error. */
  readonly secret?: true;
  /** Whether `none` switches off what it names. */
  readonly canBeNone?: true;
  readonly doc: string;
}

/**
 * The one table of options. From it come flags (`--ovs-run-dir`), environment variables (`SONDE_OVS_RUN_DIR`), keys of the configuration file
 * (`ovsRunDir` under `agent:`), its JSON schema, the types of a loaded configuration, and docs/configuration.md.
 */
export const OPTIONS = {
  host: {
    for: ['agent'],
    type: 'text',
    default: { says: "the machine's host name", of: () => hostname() },
    doc: 'Name of this host, unique in the deployment. It is in every flow row and trace, so keep it over reinstallations.',
  },
  ovsRunDir: {
    for: ['agent'],
    type: 'path',
    default: '/var/run/openvswitch',
    doc: "Folder of Open vSwitch's sockets and pid files.",
  },
  bridge: {
    for: ['agent'],
    type: 'text',
    default: 'br-int',
    doc: 'The integration bridge: the one that the vNICs of this host are plugged in.',
  },
  ovsDatabase: {
    for: ['agent'],
    type: 'path',
    default: { says: '`db.sock` in ovsRunDir', of: ({ ovsRunDir }) => `${ovsRunDir}/db.sock` },
    doc: 'Socket of ovsdb-server.',
  },
  server: {
    for: ['agent', 'client'],
    type: 'serverUrl',
    default: 'http://127.0.0.1:7070',
    doc: 'The server. With unix:/PATH the socket that the server has as listenUnix.',
  },
  listen: {
    for: ['server'],
    type: 'listen',
    default: '127.0.0.1:7070',
    doc: 'Where the API, the metrics and the bus listen. Anywhere but on loopback needs a token.',
  },
  listenUnix: {
    for: ['server'],
    type: 'path',
    doc: 'Unix socket with the same API and bus, of mode 0600: whoever may open it needs no token.',
  },
  token: {
    for: ['agent', 'server', 'client'],
    type: 'text',
    secret: true,
    doc: 'Bearer token that the server asks for. Better in the environment or the file than in a flag, which every user of the machine can read.',
  },
  role: {
    for: ['server'],
    type: ['both', 'collector', 'control'],
    default: 'both',
    doc: 'collector: from the bus to ClickHouse; control: API, intents and traces; both.',
  },
  kafka: {
    for: ['agent', 'server'],
    type: 'brokers',
    doc: 'Brokers of a Kafka cluster that is the bus, instead of the one in the server. Agents and servers of a deployment name the same cluster.',
  },
  kafkaReplication: {
    for: ['agent', 'server'],
    type: 'count',
    doc: "Copies of each topic that is created. Left out: the cluster's own default.",
  },
  kafkaTls: {
    for: ['agent', 'server'],
    type: ['off', 'on'],
    default: 'off',
    doc: 'Whether the brokers are spoken to over TLS.',
  },
  kafkaCa: {
    for: ['agent', 'server'],
    type: 'path',
    doc: "Certificates (PEM) that sign the brokers' own. Left out: those that the system trusts.",
  },
  kafkaCertificate: {
    for: ['agent', 'server'],
    type: 'path',
    doc: 'Certificate (PEM) to show to the brokers; needs kafkaKey.',
  },
  kafkaKey: {
    for: ['agent', 'server'],
    type: 'path',
    doc: 'Private key (PEM) of kafkaCertificate.',
  },
  kafkaSasl: {
    for: ['agent', 'server'],
    type: ['none', 'plain', 'scram-sha-256', 'scram-sha-512'],
    default: 'none',
    doc: 'How to log in at the brokers; needs kafkaUser and kafkaPassword.',
  },
  kafkaUser: {
    for: ['agent', 'server'],
    type: 'text',
    doc: 'User at the brokers.',
  },
  kafkaPassword: {
    for: ['agent', 'server'],
    type: 'text',
    secret: true,
    doc: 'Password of that user. Better in the environment or the file than in a flag.',
  },
  clickhouse: {
    for: ['server'],
    type: 'httpUrl',
    doc: 'HTTP address of a ClickHouse server that is the store, as http://clickhouse:8123, instead of the engine in this process.',
  },
  clickhouseUser: {
    for: ['server'],
    type: 'text',
    default: 'default',
    doc: 'User at ClickHouse; it has to be allowed to create the database sonde.',
  },
  clickhousePassword: {
    for: ['server'],
    type: 'text',
    secret: true,
    doc: 'Password of that user. Better in the environment or the file than in a flag.',
  },
  clickhouseCluster: {
    for: ['server'],
    type: 'text',
    doc: 'Name of a cluster of that ClickHouse: tables become replicated and distributed over it. Set it before the first start.',
  },
  clickhouseListen: {
    for: ['server'],
    type: 'listen',
    default: '127.0.0.1:7072',
    canBeNone: true,
    doc: "Where the embedded store answers ClickHouse's HTTP interface, read-only, for its clients and Grafana. The password is the token; port 0 takes a free one, none switches it off.",
  },
  keepFlows: {
    for: ['server'],
    type: 'wholeDays',
    default: '30d',
    doc: 'How long flow rows are kept, and connections, which are joined from them.',
  },
  keepMinutes: { for: ['server'], type: 'wholeDays', default: '60d', doc: 'How long sums a minute are kept.' },
  keepHours: { for: ['server'], type: 'wholeDays', default: '400d', doc: 'How long sums an hour are kept.' },
  keepTraces: {
    for: ['server'],
    type: 'wholeDays',
    default: '90d',
    doc: 'How long traces and their observations are kept.',
  },
  keepEvents: {
    for: ['server'],
    type: 'wholeDays',
    default: '90d',
    doc: 'How long events and the history of identities are kept.',
  },
  keepDiskShare: {
    for: ['server'],
    type: 'percent',
    default: '85%',
    doc: 'Share of the disk of the store beyond which the oldest days go before their time.',
  },
  dataDir: {
    for: ['server'],
    type: 'path',
    default: '/var/lib/sonde/server',
    doc: 'Folder of the embedded bus and store; made where it is missing.',
  },
  stateDir: {
    for: ['agent'],
    type: 'path',
    default: '/var/lib/sonde/agent',
    doc: "Folder of the agent's spool; made where it is missing.",
  },
  spoolMax: {
    for: ['agent'],
    type: 'size',
    default: '1GiB',
    doc: 'Most that waits on disk while the server cannot be reached. Beyond it the oldest flow rows are dropped, and counted.',
  },
  ipfixListen: {
    for: ['agent'],
    type: 'listen',
    default: '127.0.0.1:0',
    doc: 'UDP address to which Open vSwitch exports; port 0 takes a free one, which the agent tells the switch.',
  },
  ipfixActiveTimeout: {
    for: ['agent'],
    type: 'wholeSeconds',
    default: '5s',
    doc: 'How long the switch aggregates a connection before it exports what it counted.',
  },
  metricsListen: {
    for: ['agent'],
    type: 'listen',
    default: '127.0.0.1:7071',
    canBeNone: true,
    doc: "Where the agent's /metrics and /healthz listen; the server has them beside its API. No token protects them; port 0 takes a free one, none switches them off.",
  },
  logLevel: {
    for: ['agent', 'server'],
    type: ['info', 'trace', 'debug', 'warn', 'error', 'silent'],
    default: 'info',
    doc: 'Least level of the lines on standard error.',
  },
} as const satisfies Readonly<Record<string, OptionSpec>>;

export type OptionName = keyof typeof OPTIONS;

/** Of one process, in the order of the table. */
export function optionsOf(process: ProcessName): readonly (readonly [OptionName, OptionSpec])[] {
  return (Object.entries(OPTIONS) as [OptionName, OptionSpec][]).filter(([, spec]) => spec.for.includes(process));
}

/** `ovsRunDir` -> `--ovs-run-dir`. */
export function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** `ovsRunDir` -> `SONDE_OVS_RUN_DIR`. */
export function environmentNameOf(name: string): string {
  return `SONDE_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}

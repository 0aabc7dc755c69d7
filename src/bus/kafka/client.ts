import kafkajs, { type Kafka, type logLevel as LogLevel } from 'kafkajs';
import type { Logger } from 'pino';
import { SondeError } from '../../model/errors.ts';
import { mendAbortedTransactions } from './aborted-transactions.ts';
import { mendRequestQueue } from './request-queue.ts';

/** How to reach a Kafka cluster; certificates and keys are PEM text. */
export interface KafkaConnection {
  /** `HOST:PORT` each. */
  readonly brokers: readonly string[];
  readonly clientId: string;
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string };
  readonly sasl?: {
    readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512';
    readonly username: string;
    readonly password: string;
  };
}

export interface KafkaClientDeps {
  readonly log: Pick<Logger, 'debug'>;
  /** Why a connection could not be made or was lost, while kafkajs still tries: it tells the caller no more than that time ran out. */
  readonly onConnectionError: (why: string) => void;
}

const { logLevel } = kafkajs;
/** Attempts within kafkajs before an error reaches us; we go on trying beyond, and count. */
const RETRIES = 3;

/** One client of kafkajs; each producer, consumer, admin and reader of it has connections of its own. */
export function createKafkaClient(connection: KafkaConnection, { log, onConnectionError }: KafkaClientDeps): Kafka {
  const { brokers, clientId, tls, sasl } = connection;
  mendRequestQueue();
  mendAbortedTransactions();
  return new kafkajs.Kafka({
    brokers: [...brokers],
    clientId,
    ...(tls === undefined
      ? {}
      : {
          ssl: {
            ...(tls.ca === undefined ? {} : { ca: [tls.ca] }),
            ...(tls.cert === undefined ? {} : { cert: tls.cert }),
            ...(tls.key === undefined ? {} : { key: tls.key }),
          },
        }),
    ...(sasl === undefined ? {} : { sasl: saslOptions(sasl) }),
    connectionTimeout: 3_000,
    requestTimeout: 15_000,
    // Off by default: a broker that takes a request and never answers would be waited for forever.
    enforceRequestTimeout: true,
    retry: { initialRetryTime: 100, maxRetryTime: 3_000, retries: RETRIES },
    // Everything of it is an error that we see too, or noise of a retry.
    logLevel: logLevel.WARN,
    logCreator:
      () =>
      ({
        namespace,
        log: { message, ...fields },
      }: {
        namespace: string;
        level: LogLevel;
        log: { message: string };
      }) => {
        if (namespace === 'Connection') onConnectionError(message.replace(/^Connection error: /, ''));
        log.debug({ namespace, ...fields }, `kafkajs: ${message}`);
      },
  });
}

function saslOptions({ mechanism, username, password }: NonNullable<KafkaConnection['sasl']>) {
  const login = { username, password };
  switch (mechanism) {
    case 'plain':
      return { mechanism: 'plain', ...login } as const;
    case 'scram-sha-256':
      return { mechanism: 'scram-sha-256', ...login } as const;
    case 'scram-sha-512':
      return { mechanism: 'scram-sha-512', ...login } as const;
  }
}

interface KafkaError extends Error {
  readonly type?: string;
  readonly cause?: unknown;
}

const REFUSED = new Set([
  'SASL_AUTHENTICATION_FAILED',
  'UNSUPPORTED_SASL_MECHANISM',
  'ILLEGAL_SASL_STATE',
  'TOPIC_AUTHORIZATION_FAILED',
  'GROUP_AUTHORIZATION_FAILED',
  'CLUSTER_AUTHORIZATION_FAILED',
  'TRANSACTIONAL_ID_AUTHORIZATION_FAILED',
]);

/** An error of kafkajs in the words of the catalogue. */
export function kafkaError(error: unknown, where: string, what: string): SondeError {
  if (error instanceof SondeError) return error;
  const innermost = rootOf(error as KafkaError);
  const { name, type, message } = innermost;
  const why = message.replace(/\s+/g, ' ').slice(0, 300);
  if (name === 'KafkaJSSASLAuthenticationError' || REFUSED.has(type ?? ''))
    return new SondeError('BUS_REFUSED', { where, why }, { cause: error });
  const isAway =
    name === 'KafkaJSConnectionError' ||
    name === 'KafkaJSConnectionClosedError' ||
    name === 'KafkaJSBrokerNotFound' ||
    name === 'KafkaJSNumberOfRetriesExceeded' ||
    name === 'KafkaJSRequestTimeoutError' ||
    /ECONNREFUSED|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNRESET|certificate/i.test(why);
  return isAway
    ? new SondeError('BUS_UNREACHABLE', { where, why }, { cause: error })
    : new SondeError(
        'BUS_FAILED',
        { where, what, why: type === undefined ? why : `${type}: ${why}` },
        { cause: error },
      );
}

/** kafkajs wraps what happened in what became of the retries. */
function rootOf(error: KafkaError): KafkaError {
  const { cause } = error;
  return cause instanceof Error && cause !== error ? rootOf(cause as KafkaError) : error;
}

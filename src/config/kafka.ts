import { readFileSync } from 'node:fs';
import { SondeError } from '../model/errors.ts';
import type { AgentConfig, ServerConfig } from './load.ts';

/** How to reach the brokers of the bus; certificates and keys are PEM text. */
export interface KafkaSettings {
  readonly brokers: readonly string[];
  /** -1: the cluster's own default. */
  readonly replication: number;
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string };
  readonly sasl?: {
    readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512';
    readonly username: string;
    readonly password: string;
  };
}

type KafkaOptions = Pick<AgentConfig | ServerConfig, Extract<keyof (AgentConfig | ServerConfig), `kafka${string}`>>;

/** undefined: the bus is the one in the server. @throws SondeError CLI_FILE_UNREADABLE */
export function kafkaSettingsOf(config: KafkaOptions): KafkaSettings | undefined {
  const { kafka: brokers, kafkaReplication, kafkaTls, kafkaCa, kafkaCertificate, kafkaKey, kafkaSasl } = config;
  if (brokers === undefined) return undefined;
  const hasTls = kafkaTls === 'on' || kafkaCa !== undefined || kafkaCertificate !== undefined;
  return {
    brokers,
    replication: kafkaReplication ?? -1,
    ...(hasTls
      ? {
          tls: {
            ...(kafkaCa === undefined ? {} : { ca: read(kafkaCa) }),
            ...(kafkaCertificate === undefined ? {} : { cert: read(kafkaCertificate) }),
            ...(kafkaKey === undefined ? {} : { key: read(kafkaKey) }),
          },
        }
      : {}),
    // The loaded configuration has both where it has a mechanism.
    ...(kafkaSasl === 'none'
      ? {}
      : {
          sasl: { mechanism: kafkaSasl, username: config.kafkaUser ?? '', password: config.kafkaPassword ?? '' },
        }),
  };
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new SondeError('CLI_FILE_UNREADABLE', { file, why: (error as Error).message }, { cause: error });
  }
}

import { type DestinationStream, destination, type Logger, pino, stdTimeFunctions } from 'pino';
import type { AgentConfig } from '../config/load.ts';

export type LogLevel = AgentConfig['logLevel'];

export interface LoggerConfig {
  readonly level: LogLevel;
  /** Which process of Sonde: the field `process` of each line. */
  readonly process: string;
}

/** Field names that may hold a secret, wherever they stand. */
const SECRETS = ['token', '*.token', 'authorization', '*.authorization'];

/**
 * JSON lines on standard error (or the given stream): messages are static, what varies goes into fields. Times are ISO 8601, UTC. Errors go in the
 * field `error`, with the code of the catalogue where they have one.
 */
export function createLogger(
  { level, process: name }: LoggerConfig,
  stream: DestinationStream = destination(2),
): Logger {
  const options = {
    level,
    base: { process: name },
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: { error: pino.stdSerializers.err },
    redact: SECRETS,
  };
  return pino(options, stream);
}

export interface RateLimitConfig {
  /** Milliseconds within which a key is logged once. */
  readonly intervalMs: number;
}

export interface RateLimitDeps {
  readonly log: Pick<Logger, 'warn' | 'error'>;
  /** Milliseconds; only differences count. */
  readonly now: () => number;
}

/** Keys that are kept at most; beyond, the one that was logged longest ago is forgotten. */
const MOST_KEYS = 1000;

/**
 * A log for faults that repeat: each key once an interval, and the next line says in `suppressed` how many were left out. Count the fault in a metric
 * as well: this is for reading, not for counting.
 */
export function createRateLimitedLog({ intervalMs }: RateLimitConfig, { log, now }: RateLimitDeps) {
  const seen = new Map<string, { at: number; suppressed: number }>();

  function write(level: 'warn' | 'error', key: string, fields: Readonly<Record<string, unknown>>, message: string) {
    const last = seen.get(key);
    const at = now();
    if (last !== undefined && at - last.at < intervalMs) {
      last.suppressed++;
      return;
    }
    seen.delete(key);
    seen.set(key, { at, suppressed: 0 });
    if (seen.size > MOST_KEYS) seen.delete(seen.keys().next().value ?? '');
    log[level](
      last === undefined || last.suppressed === 0 ? fields : { ...fields, suppressed: last.suppressed },
      message,
    );
  }

  return {
    warn: (key: string, fields: Readonly<Record<string, unknown>>, message: string) =>
      write('warn', key, fields, message),
    error: (key: string, fields: Readonly<Record<string, unknown>>, message: string) =>
      write('error', key, fields, message),
  };
}

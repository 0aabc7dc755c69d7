import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Session } from 'chdb';
import { createChdbStore } from '../src/collector/store/chdb-store.ts';
import type { Store } from '../src/collector/store/store.ts';
import { type FlowDataConfig, flowMessages } from './flow-data.ts';

/** Gives a directory of its own to the work, and removes it. */
export async function withDirectory<T>(work: (directory: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'sonde-bench-'));
  try {
    return await work(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

export const createBenchStore = (directory: string): Store =>
  createChdbStore({ directory, retention: {}, queryTimeoutSeconds: 600 });

export async function withStore<T>(directory: string, work: (store: Store) => Promise<T>): Promise<T> {
  const store = createBenchStore(directory);
  await store.start();
  try {
    return await work(store);
  } finally {
    await store.stop();
  }
}

/** Statements that the store has no call for. The store of that directory is stopped meanwhile. */
export async function withEngine<T>(directory: string, work: (engine: Engine) => Promise<T>): Promise<T> {
  const session = new Session(join(directory, 'clickhouse'));
  try {
    return await work({
      execute: async (sql) => {
        await session.queryAsync(sql);
      },
      rows: async <Row>(sql: string) => {
        const answer = await session.queryAsync(sql, { format: 'JSONEachRow' });
        return answer
          .text()
          .split('\n')
          .filter((line) => line !== '')
          .map((line) => JSON.parse(line) as Row);
      },
    });
  } finally {
    session.close();
  }
}

export interface Engine {
  execute(sql: string): Promise<void>;
  /** 64-bit integers are text. */
  rows<Row>(sql: string): Promise<Row[]>;
}

/** Messages that the collector puts into one insert. */
const CHUNK = 100;

/** Stores that many rows as the collector does. Returns how many there were in the end. */
export async function storeFlows(
  store: Pick<Store, 'insertNative'>,
  config: FlowDataConfig,
  rows: number,
): Promise<number> {
  let chunk: Uint8Array[] = [];
  let stored = 0;
  let inserts = 0;
  const insert = async (): Promise<void> => {
    stored += await store.insertNative('flows', chunk, { token: `bench-${inserts++}`, compression: 'zstd' });
    chunk = [];
  };
  for (const { value } of flowMessages(config, rows)) {
    chunk.push(value);
    if (chunk.length === CHUNK) await insert();
  }
  if (chunk.length > 0) await insert();
  return stored;
}

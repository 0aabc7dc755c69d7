import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createKafkaCluster, type KafkaCluster, type KafkaClusterConfig } from '../../src/lab/kafka-cluster.ts';
import { kafkaJars } from '../../src/lab/kafka-jars.ts';

/** Why no broker can run here; undefined: one can. In CI this is no excuse, the tests run and fail. */
export const whyNoKafka: string | undefined = await kafkaJars().then(
  () => undefined,
  (error: Error) => (process.env.CI ? undefined : error.message),
);
if (whyNoKafka !== undefined) console.warn(`\nTESTS ON APACHE KAFKA ARE SKIPPED: ${whyNoKafka}\n`);

/** Brokers in a folder of their own, started; `close` ends and removes them. */
export async function startKafka(
  config: Omit<KafkaClusterConfig, 'directory'>,
): Promise<KafkaCluster & { close(): Promise<void> }> {
  const directory = await mkdtemp(join(tmpdir(), 'sonde-kafka-'));
  const remove = (): Promise<void> => rm(directory, { recursive: true, force: true });
  try {
    const cluster = await createKafkaCluster({ ...config, directory });
    await cluster.start();
    return {
      ...cluster,
      async close() {
        await cluster.stop();
        await remove();
      },
    };
  } catch (error) {
    await remove();
    throw error;
  }
}

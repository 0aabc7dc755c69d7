import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { SondeError } from '../model/errors.ts';

const run = promisify(execFile);

/** Apache Kafka as published; it needs Java 17 and nothing else. */
export const KAFKA_VERSION = '4.3.1';
const COORDINATES = { groupId: 'org.apache.kafka', artifactId: 'kafka_2.13', version: KAFKA_VERSION };
const FETCH_MS = 300_000;

const POM = `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>sonde</groupId><artifactId>kafka-jars</artifactId><version>1</version><dependencies><dependency>
<groupId>${COORDINATES.groupId}</groupId><artifactId>${COORDINATES.artifactId}</artifactId><version>${COORDINATES.version}</version>
</dependency></dependencies></project>
`;

/** Outside of any checkout, so that several share it. */
const cacheFolder = (): string =>
  join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'sonde', `kafka-${KAFKA_VERSION}`);

/**
 * The folder of Kafka's jars; fetched once by their Maven coordinates (some 45 MB).
 * @throws SondeError LAB_TOOL_MISSING, LAB_COMMAND_FAILED
 */
export async function kafkaJars(): Promise<string> {
  await requireTool('java', 'openjdk-17-jre-headless');
  const folder = cacheFolder();
  if (await isThere(folder)) return folder;
  await requireTool('mvn', 'maven');
  const work = await mkdtemp(join(tmpdir(), 'sonde-kafka-jars-'));
  try {
    await writeFile(join(work, 'pom.xml'), POM);
    const lib = join(work, 'lib');
    await run(
      'mvn',
      ['-q', '-B', '-f', join(work, 'pom.xml'), 'dependency:copy-dependencies', `-DoutputDirectory=${lib}`],
      { timeout: FETCH_MS },
    ).catch((error: Error & { stdout?: string }) => {
      const why = (error.stdout || error.message).split('\n').find((line) => line.includes('ERROR')) ?? error.message;
      throw new SondeError('LAB_COMMAND_FAILED', {
        what: 'fetch the jars of Kafka',
        command: 'mvn dependency:copy-dependencies',
        why: why.slice(0, 300),
      });
    });
    await mkdir(join(folder, '..'), { recursive: true });
    // Whole or not at all; somebody else may have been faster.
    const beside = `${folder}.${process.pid}`;
    await rm(beside, { recursive: true, force: true });
    await run('cp', ['-r', lib, beside]);
    await rename(beside, folder).catch(async (error) => {
      await rm(beside, { recursive: true, force: true });
      if (!(await isThere(folder))) throw error;
    });
    return folder;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function isThere(folder: string): Promise<boolean> {
  const files = await readdir(folder).catch(() => []);
  return files.some((file) => file === `${COORDINATES.artifactId}-${KAFKA_VERSION}.jar`);
}

async function requireTool(tool: string, packageName: string): Promise<void> {
  await run(tool, ['--version'], { timeout: 30_000 }).catch((error) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT')
      throw new SondeError('LAB_TOOL_MISSING', { tool, package: packageName });
  });
}

import kafkajs, { type Admin } from 'kafkajs';
import { MAX_CALL_OCTETS } from '../bus.ts';

/** A topic as this deployment wants it. */
export interface TopicSettings {
  readonly partitions: number;
  readonly compacted: boolean;
  /** 0: for ever. */
  readonly retentionHours: number;
}

const HOUR_MS = 3_600_000;

/** What differs from the wish in a topic that is there already; the cluster's owner may have reasons. */
export interface TopicDifference {
  readonly topic: string;
  readonly setting: string;
  readonly found: string;
  readonly wanted: string;
}

function configOf({ compacted, retentionHours }: TopicSettings): { name: string; value: string }[] {
  return [
    { name: 'cleanup.policy', value: compacted ? 'compact' : 'delete' },
    { name: 'retention.ms', value: compacted || retentionHours === 0 ? '-1' : String(retentionHours * HOUR_MS) },
    // A record batch of one call, with room for what Kafka adds.
    { name: 'max.message.bytes', value: String(MAX_CALL_OCTETS + 1024 * 1024) },
  ];
}

/** Creates the topics that are not there, and looks at the others. Returns the partitions of each, and what differs. */
export async function ensureTopics(
  admin: Admin,
  topics: Readonly<Record<string, TopicSettings>>,
  replication: number,
): Promise<{ partitions: Map<string, number>; differences: TopicDifference[] }> {
  const names = Object.keys(topics);
  const there = new Set(await admin.listTopics());
  const missing = names.filter((name) => !there.has(name));
  // Another process may be about to create the same: then this answers false, and that is as well.
  if (missing.length > 0)
    await admin.createTopics({
      waitForLeaders: true,
      topics: missing.map((topic) => {
        const settings = topics[topic] as TopicSettings;
        return {
          topic,
          numPartitions: settings.partitions,
          replicationFactor: replication,
          configEntries: configOf(settings),
        };
      }),
    });
  const { topics: found } = await admin.fetchTopicMetadata({ topics: names });
  const partitions = new Map(found.map(({ name, partitions: all }) => [name, all.length]));
  const existing = names.filter((name) => there.has(name));
  return { partitions, differences: await compare(admin, existing, topics) };
}

async function compare(
  admin: Admin,
  names: readonly string[],
  topics: Readonly<Record<string, TopicSettings>>,
): Promise<TopicDifference[]> {
  if (names.length === 0) return [];
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: names.map((name) => ({
      type: kafkajs.ConfigResourceTypes.TOPIC,
      name,
      configNames: configOf(topics[name] as TopicSettings).map((one) => one.name),
    })),
  });
  return resources.flatMap(({ resourceName: topic, configEntries }) =>
    configOf(topics[topic] as TopicSettings).flatMap(({ name: setting, value: wanted }) => {
      const found = configEntries.find(({ configName }) => configName === setting)?.configValue ?? '';
      return found === wanted ? [] : [{ topic, setting, found, wanted }];
    }),
  );
}

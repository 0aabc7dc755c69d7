/** Every topic, once. `partitions` is the default; a deployment may raise it before the topic is made. */
export const TOPICS = {
  'sonde.flows': {
    partitions: 8,
    compacted: false,
    retentionHours: 24,
    key: 'host',
    doc: 'Flow rows: one zstd frame with one ClickHouse Native block a message.',
  },
  'sonde.observations': {
    partitions: 4,
    compacted: false,
    retentionHours: 24,
    key: 'trace number',
    doc: 'What one host saw of a trace.',
  },
  'sonde.requests': {
    partitions: 4,
    compacted: false,
    retentionHours: 1,
    key: 'host',
    doc: 'Requests to one host: inject a trace.',
  },
  'sonde.hosts': {
    partitions: 1,
    compacted: true,
    retentionHours: 0,
    key: 'host',
    doc: 'Alive, realized revision, capabilities.',
  },
  'sonde.endpoints': {
    partitions: 1,
    compacted: true,
    retentionHours: 0,
    key: 'iface-id',
    doc: 'Identity and location of each endpoint.',
  },
  'sonde.intents': {
    partitions: 1,
    compacted: true,
    retentionHours: 0,
    key: 'kind/name',
    doc: 'Declared documents; a marker with the revision ends each batch.',
  },
  'sonde.events': {
    partitions: 4,
    compacted: false,
    retentionHours: 168,
    key: 'host',
    doc: 'Drops, identity changes, alerts.',
  },
  'sonde.dead': {
    partitions: 1,
    compacted: false,
    retentionHours: 168,
    key: 'topic:partition:offset',
    doc: 'Messages that no consumer could use, with the reason in a header.',
  },
} as const satisfies Record<
  string,
  { partitions: number; compacted: boolean; retentionHours: number; key: string; doc: string }
>;

export type Topic = keyof typeof TOPICS;

const ALONE = { partitions: 1 } as const;

/**
 * On the embedded bus, whose one collector writes into one store: a partition each for what is stored. A row costs several times as much when eight
 * partitions are inserted in turn, a few thousand rows each.
 */
export const EMBEDDED_TOPICS = {
  ...TOPICS,
  'sonde.flows': { ...TOPICS['sonde.flows'], ...ALONE },
  'sonde.observations': { ...TOPICS['sonde.observations'], ...ALONE },
  'sonde.events': { ...TOPICS['sonde.events'], ...ALONE },
};

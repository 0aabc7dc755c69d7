import type { TSchema } from 'typebox';
import type { Validator } from 'typebox/compile';
import { Compile } from 'typebox/compile';
import type { Bus, BusMessage, Reader } from '../bus/bus.ts';
import type { Topic } from '../bus/topics.ts';
import { isKind, type StoredDocument, type Tier } from '../model/documents.ts';
import { type Endpoint, EndpointLocation, resolveEndpoints } from '../model/endpoint.ts';
import { HostStatus } from '../model/host.ts';
import { parseIpv4 } from '../wire/address.ts';
import { createIntentReader, type IntentState } from './intents/state.ts';

/** A rule as others name it. Rules that are gone stay known: rows and traces still carry their numbers. */
export interface KnownRule {
  readonly policy: string;
  readonly rule: string;
  readonly tier: Tier;
  readonly direction: 'ingress' | 'egress';
  readonly action: 'allow' | 'deny';
}

/** What of the world a change is in. */
export type WorldPart = 'intents' | 'endpoints' | 'hosts';

export interface WorldDeps {
  readonly bus: Bus;
}

const TOPICS = {
  intents: 'sonde.intents',
  endpoints: 'sonde.endpoints',
  hosts: 'sonde.hosts',
} as const satisfies Record<WorldPart, Topic>;

/**
 * What is declared and where it runs, kept current from the bus's compacted topics; one in each agent and each control server. It is not `ready`
 * before all three topics were read to their end: whoever acts on half a world would tear down what works.
 */
export function createWorld({ bus }: WorldDeps) {
  const intents = createIntentReader();
  const locations = createTable(EndpointLocation);
  const hosts = createTable(HostStatus);
  const listeners = new Set<(part: WorldPart) => void>();
  const rules = new Map<number, KnownRule>();
  const routers = new Map<string, string>();
  let endpoints: readonly Endpoint[] | undefined;
  let documents: readonly StoredDocument[] = [];
  let readers: Reader[] = [];
  const { promise: ready, resolve: becomeReady } = Promise.withResolvers<void>();

  function intentsChanged(): void {
    const before = documents;
    documents = [...intents.state.documents.values()];
    // The same endpoints stay the same object: the compiler goes by that.
    if (!isSame(before.filter(placesEndpoints), documents.filter(placesEndpoints))) endpoints = undefined;
    routers.clear();
    for (const each of documents) {
      if (isKind(each, 'Router'))
        for (const { network } of each.spec.interfaces) routers.set(network, each.metadata.name);
      if (isKind(each, 'Policy')) noteRules(each, rules);
    }
  }

  function tell(part: WorldPart): void {
    for (const listener of listeners) listener(part);
  }

  return {
    /** Resolves when everything that was on the bus has been read. */
    ready,
    async start(): Promise<void> {
      const read = (part: WorldPart, take: (messages: readonly BusMessage[]) => boolean): Promise<void> => {
        const { promise, resolve } = Promise.withResolvers<void>();
        void bus
          .read(
            { topic: TOPICS[part], from: 'start' },
            { onMessages: (messages) => (take(messages) ? tell(part) : undefined), onCaughtUp: resolve },
          )
          .then((reader) => readers.push(reader));
        return promise;
      };
      const caughtUp = [
        read('intents', (messages) => {
          const isChanged = intents.take(messages);
          if (isChanged) intentsChanged();
          return isChanged;
        }),
        read('endpoints', (messages) => {
          const isChanged = locations.take(messages);
          if (isChanged) endpoints = undefined;
          return isChanged;
        }),
        read('hosts', (messages) => hosts.take(messages)),
      ];
      void Promise.all(caughtUp).then(() => {
        becomeReady();
        tell('intents');
      });
    },
    async stop(): Promise<void> {
      await Promise.all(readers.map((reader) => reader.stop()));
      readers = [];
    },
    state: (): IntentState => intents.state,
    documents: (): readonly StoredDocument[] => documents,
    endpoints: (): readonly Endpoint[] => (endpoints ??= resolveEndpoints(documents, locations.rows)),
    locations: (): ReadonlyMap<string, EndpointLocation> => locations.rows,
    /** Underlay IPv4 addresses of all hosts with endpoints but that one. */
    peerAddresses: (own: string): ReadonlySet<number> =>
      new Set(
        [...locations.rows.values()].flatMap(({ host, encapAddress }) =>
          host === own ? [] : (parseIpv4(encapAddress) ?? []),
        ),
      ),
    hosts: (): ReadonlyMap<string, HostStatus> => hosts.rows,
    rule: (number: number): KnownRule | undefined => rules.get(number),
    routerOf: (network: string): string | undefined => routers.get(network),
    /** Messages that were skipped because they are not what the topic carries. */
    malformed: (): number => intents.malformed + locations.malformed + hosts.malformed,
    /** Until the returned function is called. */
    onChange(listener: (part: WorldPart) => void): () => void {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

export type World = ReturnType<typeof createWorld>;

function placesEndpoints({ kind }: StoredDocument): boolean {
  return kind === 'Network' || kind === 'Endpoint';
}

function isSame(a: readonly StoredDocument[], b: readonly StoredDocument[]): boolean {
  return a.length === b.length && a.every((each, at) => each === b[at]);
}

function noteRules(policy: Extract<StoredDocument, { kind: 'Policy' }>, rules: Map<number, KnownRule>): void {
  for (const direction of ['ingress', 'egress'] as const) {
    for (const { name, action } of policy.spec[direction] ?? []) {
      const status = policy.status.rules?.[`${direction}/${name}`];
      if (status === undefined) continue;
      rules.set(status.number, { policy: policy.metadata.name, rule: name, tier: policy.spec.tier, direction, action });
    }
  }
}

/** Rows of a compacted topic by key. */
function createTable<T extends TSchema>(schema: T) {
  const valid: Validator<Record<never, never>, T> = Compile(schema);
  type Row = ReturnType<(typeof valid)['Parse']>;
  const rows = new Map<string, Row>();
  let malformed = 0;
  return {
    rows: rows as ReadonlyMap<string, Row>,
    get malformed(): number {
      return malformed;
    },
    take(messages: readonly BusMessage[]): boolean {
      let isChanged = false;
      for (const { key, value } of messages) {
        if (key === null) malformed++;
        else if (value === null) isChanged = rows.delete(key) || isChanged;
        else {
          const row = parseJson(value);
          if (!valid.Check(row)) malformed++;
          else if (JSON.stringify(row) !== JSON.stringify(rows.get(key))) {
            rows.set(key, row as Row);
            isChanged = true;
          }
        }
      }
      return isChanged;
    },
  };
}

function parseJson(value: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(value)) as unknown;
  } catch {
    return undefined;
  }
}

import type { BusMessage } from '../../bus/bus.ts';
import { FIRST_RULE } from '../../model/datapath.ts';
import type { StoredDocument } from '../../model/documents.ts';

/** Key of the message that ends each batch on `sonde.intents`. No document has it: names hold no `~`. */
export const MARKER_KEY = '~marker';

/** What the last message of a batch says. */
interface Marker {
  readonly revision: number;
  /** The revision that the writer started from. */
  readonly base: number;
  /** Names the batch, so that its writer can tell whether it was this one that took effect. */
  readonly batch: string;
  /** The next numbers to give: they never come back, so that old flow rows keep their meaning. */
  readonly nextRule: number;
  readonly nextVni: number;
}

/** The declared world at one revision. */
export interface IntentState extends Marker {
  readonly documents: ReadonlyMap<string, StoredDocument>;
  /**
   * Keys whose newest message on the topic is of a batch that lost. A reader that starts after the topic was compacted sees only that message, so the
   * next batch writes them anew.
   */
  readonly overwritten: ReadonlySet<string>;
}

const FIRST_VNI = 4097;

export const EMPTY_STATE: IntentState = {
  revision: 0,
  base: 0,
  batch: '',
  nextRule: FIRST_RULE,
  nextVni: FIRST_VNI,
  documents: new Map(),
  overwritten: new Set(),
};

/**
 * Reads `sonde.intents`. Messages of a batch that has not ended wait; a batch takes effect as a whole with its marker, unless its writer started from
 * a revision that was no longer the newest. Malformed messages are counted and skipped.
 */
export function createIntentReader() {
  let state = EMPTY_STATE;
  let pending = new Map<string, StoredDocument | null>();
  let malformed = 0;
  let stale = 0;

  return {
    get state(): IntentState {
      return state;
    },
    get malformed(): number {
      return malformed;
    },
    /** Batches that lost against another writer. */
    get stale(): number {
      return stale;
    },
    /** Returns whether a batch took effect. */
    take(messages: readonly BusMessage[]): boolean {
      let isChanged = false;
      for (const { key, value } of messages) {
        const content = key === null ? undefined : value === null ? null : parse(value);
        if (key === null || content === undefined) malformed++;
        else if (key !== MARKER_KEY) {
          if (content === null || isStored(content)) pending.set(key, content);
          else malformed++;
        } else {
          const marker = content as Marker | null;
          // Compaction removes old markers, so the first one of a reader may start from any revision.
          if (marker === null || typeof marker.revision !== 'number') malformed++;
          else if (state.revision !== 0 && marker.base !== state.revision) {
            stale++;
            state = { ...state, overwritten: new Set([...state.overwritten, ...pending.keys()]) };
          } else {
            const overwritten = new Set([...state.overwritten].filter((each) => !pending.has(each)));
            state = { ...marker, documents: merge(state.documents, pending), overwritten };
            isChanged = true;
          }
          pending = new Map();
        }
      }
      return isChanged;
    },
  };
}

function parse(value: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(value)) as unknown;
  } catch {
    return undefined;
  }
}

/** Only what everybody relies on: a newer server's documents may have fields that this version does not know. */
function isStored(content: unknown): content is StoredDocument {
  const { kind, metadata, spec, status } = Object(content) as Record<string, unknown>;
  const isNamed = typeof Object(metadata).name === 'string';
  return typeof kind === 'string' && isNamed && typeof spec === 'object' && typeof status === 'object';
}

function merge(
  documents: ReadonlyMap<string, StoredDocument>,
  changes: ReadonlyMap<string, StoredDocument | null>,
): ReadonlyMap<string, StoredDocument> {
  const merged = new Map(documents);
  for (const [key, document] of changes) {
    if (document === null) merged.delete(key);
    else merged.set(key, document);
  }
  return merged;
}

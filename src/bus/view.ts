import type { Bus, BusMessage, Reader } from './bus.ts';

export interface CompactedViewConfig<T> {
  /** undefined: the value is not of this form. */
  readonly parse: (bytes: Uint8Array, key: string) => T | undefined;
  /** After the view has changed; undefined: the key was deleted. Also called for what was there at the start. */
  readonly onChange?: (key: string, entry: T | undefined) => void;
}

/** The newest value of each key of a compacted topic, kept up to date. */
export interface CompactedView<T> {
  /** Resolves when all that was there at the start is in. Waits for a bus that is not reached yet. */
  readonly ready: Promise<void>;
  readonly entries: ReadonlyMap<string, T>;
  /** Messages that could not be parsed. The last good value of their key stays. */
  readonly malformed: number;
  start(): Promise<void>;
  /** The entries stay as they are. */
  stop(): Promise<void>;
}

export function createCompactedView<T>(
  bus: Pick<Bus, 'read'>,
  topic: string,
  { parse, onChange }: CompactedViewConfig<T>,
): CompactedView<T> {
  const entries = new Map<string, T>();
  const ready = Promise.withResolvers<void>();
  let malformed = 0;
  let reader: Promise<Reader> | undefined;

  function take({ key, value }: BusMessage): void {
    if (key === null) {
      malformed++;
    } else if (value === null) {
      if (entries.delete(key)) onChange?.(key, undefined);
    } else {
      const entry = parse(value, key);
      if (entry === undefined) {
        malformed++;
        return;
      }
      entries.set(key, entry);
      onChange?.(key, entry);
    }
  }

  return {
    ready: ready.promise,
    entries,
    get malformed() {
      return malformed;
    },
    async start() {
      reader ??= bus.read(
        { topic, from: 'start' },
        { onMessages: (messages) => messages.forEach(take), onCaughtUp: () => ready.resolve() },
      );
      await reader;
    },
    async stop() {
      const started = reader;
      reader = undefined;
      await (await started)?.stop();
    },
  };
}

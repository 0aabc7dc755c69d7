import type { SondeError } from '../model/errors.ts';

/** What stands against this process now, for its status: beside the log, where the same is a line of the past. */
export interface Conditions {
  /** undefined: it is over. */
  set(key: string, error: SondeError | undefined): void;
  list(): readonly { readonly code: string; readonly message: string }[];
}

/** @param onChange told of each condition that begins, changes or ends. */
export function createConditions(onChange: (key: string, error: SondeError | undefined) => void): Conditions {
  const standing = new Map<string, SondeError>();
  return {
    set(key, error) {
      const before = standing.get(key);
      if (before?.code === error?.code && before?.message === error?.message) return;
      if (error === undefined) standing.delete(key);
      else standing.set(key, error);
      onChange(key, error);
    },
    list: () => [...standing.values()].map(({ code, message }) => ({ code, message })),
  };
}

/** A message's JSON value; undefined where it is none. */
export function parseMessage(value: Uint8Array | null): unknown {
  if (value === null) return undefined;
  try {
    return JSON.parse(Buffer.from(value).toString('utf8'));
  } catch {
    return undefined;
  }
}

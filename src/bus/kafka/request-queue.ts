import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);

/** What is used here of kafkajs 2.2.4, src/network/requestQueue/index.js. */
interface RequestQueue {
  readonly pending: readonly unknown[];
  /** Milliseconds since the epoch until which the broker wants no requests; -1 if it never said so. */
  readonly throttledUntil: number;
  throttleCheckTimeoutId: NodeJS.Timeout | null;
  checkPendingRequests(): void;
}

/** As in kafkajs. */
const CHECK_MS = 10;

/**
 * kafkajs looks at its waiting requests by a timer, and sets that again whether or not any wait, by a time that lies in 1970: a negative delay, so each
 * connection wakes up a thousand times a second for good, and Node 24 warns of it (kafkajs 1556, 1704, 1751). Here the timer runs only while something waits.
 */
function scheduleCheckPendingRequests(this: RequestQueue): void {
  if (this.throttleCheckTimeoutId !== null || this.pending.length === 0) return;
  const rest = this.throttledUntil - Date.now();
  this.throttleCheckTimeoutId = setTimeout(
    () => {
      this.throttleCheckTimeoutId = null;
      this.checkPendingRequests();
    },
    rest > 0 ? rest : CHECK_MS,
  );
}

/** For every client of this process. */
export function mendRequestQueue(): void {
  const { prototype } = require('kafkajs/src/network/requestQueue') as {
    readonly prototype: { scheduleCheckPendingRequests: typeof scheduleCheckPendingRequests };
  };
  prototype.scheduleCheckPendingRequests = scheduleCheckPendingRequests;
}

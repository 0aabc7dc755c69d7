import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from './client.ts';
import { writeOut } from './output.ts';
import type { FlowText } from './render/views.ts';

const POLL_MS = 1_000;
/** Rows may come late: an agent holds them for a second or two, and a busy bus for longer. */
const LATE_MS = 60_000;
/** What a clock and a slow answer may add between two questions. */
const SLACK_MS = 1_000;
/** The API's highest limit. */
const MOST = 10_000;

type Query = Readonly<Record<string, string | undefined>>;

/**
 * Shows the last rows and then each new one once, oldest first, until the process is interrupted.
 * A row is named by its host, run and number. The span asked for reaches back to the last answer and `LATE_MS` before it, so it survives a server that is
 * away for long; it is relative, so that only the server's clock counts.
 * @param query filters, and as `limit` how many rows to begin with
 * @throws what the client throws, before there was an answer; later it asks again
 */
export async function followFlows(client: Client, query: Query, line: (row: FlowText) => string): Promise<void> {
  process.once('SIGINT', () => process.exit(0));
  const ask = (more: Query) => client.json<FlowText[]>('GET', '/v1/flows', { query: { ...query, ...more } });
  const recent = (spanMs: number) => ask({ since: `${Math.ceil(spanMs)}ms`, limit: String(MOST) });
  const nameOf = ({ host, epoch, number }: FlowText): string => `${host} ${epoch} ${number}`;

  let answeredAt = performance.now();
  // What is there already is known, though only its newest rows are shown.
  const seen = new Map((await recent(LATE_MS + SLACK_MS)).map((row) => [nameOf(row), answeredAt]));
  const first = await ask({});
  for (const row of first) seen.set(nameOf(row), answeredAt);
  await writeOut(Buffer.from(first.reverse().map(line).join('')));

  let isAway = false;
  for (;;) {
    await sleep(POLL_MS);
    const askedAt = performance.now();
    let rows: FlowText[];
    try {
      rows = await recent(askedAt - answeredAt + LATE_MS + SLACK_MS);
    } catch (error) {
      if (!isAway) process.stderr.write(`${(error as Error).message} It is asked again until it answers.\n`);
      isAway = true;
      continue;
    }
    isAway = false;
    answeredAt = askedAt;
    const fresh = rows.filter((row) => !seen.has(nameOf(row)));
    for (const row of rows) seen.set(nameOf(row), askedAt);
    for (const [name, at] of seen) if (at < askedAt - 2 * LATE_MS) seen.delete(name);
    await writeOut(Buffer.from(fresh.reverse().map(line).join('')));
    if (rows.length === MOST)
      process.stderr.write(`More than ${MOST} rows a minute match: some are left out. Narrow the choice.\n`);
  }
}

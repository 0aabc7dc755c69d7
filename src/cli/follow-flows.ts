import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from './client.ts';
import { writeOut } from './output.ts';
import type { FlowText } from './render/views.ts';

const POLL_MS = 1_000;
/** An agent holds rows for a second or two: what is looked back at each time. */
const USUAL_MS = 5_000;
/** On a busy bus rows may come later than that: what is looked back at now and then, since it costs so much more. */
const LATE_MS = 60_000;
const LATE_EVERY_MS = 5_000;
/** Share of the time that may be spent on it, as long as it is done once in `LATE_MS`. */
const LATE_SHARE = 0.1;
/** What a clock and a slow answer may add between two questions. */
const SLACK_MS = 1_000;
/** The API's highest limit. */
const PAGE = 10_000;
/** New rows of one look. Whoever is so far behind does not keep up, and remembering more of them would fill the memory. */
const MOST_BEHIND = 500_000;

type Query = Readonly<Record<string, string | undefined>>;

const nameOf = ({ host, epoch, number }: FlowText): string => `${host} ${epoch} ${number}`;
const cursorOf = ({ time, host, number }: FlowText): string => `${time},${host},${number}`;

/**
 * Shows the last rows and then each new one once, oldest first, until the process is interrupted.
 * A row is named by its host, run and number. Each look goes page by page through a span that reaches back to the last one, and far enough before it for rows that come late, so
 * nothing is left out however many rows there are, or however long the server is away. The span is relative, so that only the server's clock counts.
 * Where more than `mostBehind` rows wait, the rest is skipped, and counted on standard error.
 * @param query filters, and as `limit` how many rows to begin with
 * @throws what the client throws, before there was an answer; later it asks again
 */
export async function followFlows(
  client: Client,
  query: Query,
  line: (row: FlowText) => string,
  mostBehind = MOST_BEHIND,
): Promise<void> {
  process.once('SIGINT', () => process.exit(0));
  const ask = (more: Query) => client.json<FlowText[]>('GET', '/v1/flows', { query: { ...query, ...more } });
  const seen = new Map<string, number>();
  /** What was skipped lies before this row. */
  let floor: string | undefined;

  /** New rows of the last milliseconds, oldest first, a page at a time. */
  async function* fresh(spanMs: number, at: number): AsyncGenerator<FlowText[], void> {
    let after = floor;
    for (;;) {
      const since = `${Math.ceil(spanMs + performance.now() - at)}ms`;
      const rows = await ask({ since, order: 'oldest', after, limit: String(PAGE) });
      const unseen = rows.filter((row) => !seen.has(nameOf(row)));
      for (const row of rows) seen.set(nameOf(row), at);
      yield unseen;
      const last = rows.at(-1);
      if (rows.length < PAGE || last === undefined) return;
      after = cursorOf(last);
    }
  }

  /** Goes to the newest row and says how many lie between. */
  async function skip(from: FlowText): Promise<void> {
    const [newest] = await ask({ limit: '1' });
    if (newest === undefined) return;
    floor = cursorOf(newest);
    const count = async (after: string): Promise<number> => {
      const { limit: _, since: __, ...filters } = query;
      const { rows } = await client.json<{ rows: number }>('GET', '/v1/flows/count', { query: { ...filters, after } });
      return rows;
    };
    const left = (await count(cursorOf(from))) - (await count(floor));
    if (left > 0)
      process.stderr.write(`${left} rows are left out: they come faster than they are shown. Narrow the choice.\n`);
  }

  let answeredAt = performance.now();
  let lateAt = answeredAt;
  let lateTookMs = 0;
  // What is there already is known, though only its newest rows are shown.
  for await (const _ of fresh(LATE_MS + SLACK_MS, answeredAt));
  const first = await ask({});
  for (const row of first) seen.set(nameOf(row), answeredAt);
  await writeOut(Buffer.from(first.reverse().map(line).join('')));

  let isAway = false;
  for (;;) {
    await sleep(POLL_MS);
    const askedAt = performance.now();
    const lateEveryMs = Math.min(LATE_MS, Math.max(LATE_EVERY_MS, lateTookMs / LATE_SHARE));
    const isLate = askedAt - lateAt >= lateEveryMs;
    const spanMs = askedAt - (isLate ? lateAt - LATE_MS : answeredAt - USUAL_MS) + SLACK_MS;
    try {
      let behind = 0;
      for await (const rows of fresh(spanMs, askedAt)) {
        await writeOut(Buffer.from(rows.map(line).join('')));
        behind += rows.length;
        const last = rows.at(-1);
        if (behind < mostBehind || last === undefined) continue;
        await skip(last);
        break;
      }
    } catch (error) {
      if (!isAway) process.stderr.write(`${(error as Error).message} It is asked again until it answers.\n`);
      isAway = true;
      continue;
    }
    isAway = false;
    answeredAt = askedAt;
    if (isLate) {
      lateAt = askedAt;
      lateTookMs = performance.now() - askedAt;
    }
    // The next look at late rows begins before the last one.
    const forgotten = Math.min(lateAt, askedAt - 2 * LATE_MS);
    for (const [name, at] of seen) if (at < forgotten) seen.delete(name);
  }
}

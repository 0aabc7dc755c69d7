import type { Spool } from '../bus/spool.ts';
import type { LocalPort } from '../model/local-port.ts';
import type { Directory } from './identity/directory.ts';
import { type IdentityHistory, residents } from './identity/history.ts';
import type { Ledger } from './ledger.ts';
import { createLossReports } from './loss-reports.ts';
import type { createTellReports } from './tell-reports.ts';

export interface ReportsConfig {
  readonly host: string;
  /** How often the ledger hears what was seen, and whom for the first time, ms. */
  readonly everyMs: number;
}

export interface ReportsDeps {
  readonly spool: Pick<Spool, 'depth' | 'losses'>;
  readonly tell: ReturnType<typeof createTellReports>;
  readonly ledger: Ledger;
  readonly identities: IdentityHistory;
  /** Records that the source lost, by its own account. */
  readonly lostRecords: () => number;
  /** What nobody could count, by reason. */
  readonly uncounted: () => Readonly<Record<string, number>>;
  readonly ports: () => readonly LocalPort[];
  readonly directory: () => Directory;
  /** Microseconds since the epoch. */
  readonly now: () => number;
}

/** Tells `sonde.events`, again and again, what this agent has seen and lost, and who was behind which address. Inert until `start`. */
export function createReports({ host, everyMs }: ReportsConfig, deps: ReportsDeps) {
  const losses = createLossReports({ host });
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> = Promise.resolve();

  async function report(isLast: boolean): Promise<void> {
    const now = deps.now();
    const waits = deps.spool.depth();
    const counts = { spoolRows: waits.rows, lostRecords: deps.lostRecords(), uncounted: { ...deps.uncounted() } };
    await deps.tell(deps.ledger.report(now, counts));
    const lost = losses.report(now, counts, waits.messages === 0, deps.spool.losses());
    if (lost !== undefined && !(await deps.tell(lost))) losses.failed();
    // Guests that are silent are there as well.
    for (const sighting of residents(deps.ports(), deps.directory(), now)) deps.identities.see(sighting);
    for (const said of deps.identities.report(now, isLast)) await deps.tell(said);
  }

  return {
    start(): void {
      timer = setInterval(() => {
        running = running.then(() => report(false));
      }, everyMs);
    },
    /** Says all that is not said yet. */
    async stop(): Promise<void> {
      clearInterval(timer);
      await running;
      await report(true);
    },
  };
}

import type { LedgerEntry, LedgerReport } from '../model/ledger.ts';

/** What a spool has given up, over all runs of the agent. */
export interface SpoolLosses {
  readonly reporter: string;
  /** Grows with each loss. */
  readonly version: number;
  list(): readonly {
    readonly reason: string;
    readonly epoch: number;
    readonly hour: number;
    readonly rows: number;
    /** Numbers that were seen with them: [first, next). They count as observed, whether or not their own run lived to say so. */
    readonly first?: number;
    readonly next?: number;
  }[];
}

/**
 * Tells the ledger what the spool has given up. The spool keeps that on disk, so it is told by the spool's own name, not by that of a run: an agent that is
 * killed before it told has a next run that does, and what is told twice is the same.
 */
export function createLossReports({ host }: { readonly host: string }) {
  let said = 0;
  let heard = 0;

  return {
    /** What was said last was not kept. */
    failed(): void {
      said = heard;
    },
    /**
     * undefined: there is nothing that was not heard.
     * @param at microseconds since the epoch
     * @param isEmpty nothing waits in the spool, so that the bus has what was said last
     */
    report(
      at: number,
      counts: Pick<LedgerReport, 'spoolRows' | 'lostRecords'>,
      isEmpty: boolean,
      losses: SpoolLosses | undefined,
    ): LedgerReport | undefined {
      if (losses === undefined) return undefined;
      // A report that was itself given up for newer messages made the version grow.
      if (isEmpty && losses.version === said) heard = said;
      if (heard === losses.version) return undefined;
      said = losses.version;
      const lines = losses
        .list()
        .flatMap(({ reason, epoch, hour, rows, first, next }): LedgerEntry[] => [
          { epoch, hour, stage: 'spool', reason, value: rows, first: 0 },
          ...(first === undefined || next === undefined
            ? []
            : [{ epoch, hour, stage: '', reason: '', value: next, first }]),
        ]);
      return { kind: 'ledger', at, host, reporter: losses.reporter, lines, ...counts };
    },
  };
}

import type { Spool } from '../bus/spool.ts';
import type { IdentityReport } from '../model/identity.ts';
import type { LedgerReport } from '../model/ledger.ts';
import type { VnicLedgerReport } from '../model/vnic-ledger.ts';

export type Report = LedgerReport | IdentityReport | VnicLedgerReport;

export interface TellReportsDeps {
  readonly spool: Pick<Spool, 'append'>;
  /** A report could not be kept; what it said is said again with the next. */
  readonly onLost: (error: unknown, kind: Report['kind']) => void;
}

/** Gives what puts a report of `host` on `sonde.events`, and resolves to whether it was kept. */
export function createTellReports(host: string, { spool, onLost }: TellReportsDeps) {
  return (report: Report): Promise<boolean> =>
    spool.append('sonde.events', { key: host, value: Buffer.from(JSON.stringify(report)) }).then(
      () => true,
      (error) => {
        onLost(error, report.kind);
        return false;
      },
    );
}

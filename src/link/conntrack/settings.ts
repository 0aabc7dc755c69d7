import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SondeError } from '../../model/errors.ts';

/**
 * What conntrack has to be told, in the network namespace of this process; each is for connections that begin after. A kernel that tracks nothing has none of
 * them (Documentation/networking/nf_conntrack-sysctl.rst).
 */
const SETTINGS = [
  {
    setting: 'nf_conntrack_acct',
    lost: 'no connection has packets or octets',
    option: 'NF_CONNTRACK',
  },
  {
    setting: 'nf_conntrack_timestamp',
    lost: 'no connection has a time of its own, and repeated ones cannot be told apart',
    option: 'NF_CONNTRACK_TIMESTAMP',
  },
  {
    // The default, 2, means: for connections that begin while somebody listens. Those of an agent's restart would end without a word.
    setting: 'nf_conntrack_events',
    lost: 'connections may end without a word, and with them what they moved since the last look',
    option: 'NF_CONNTRACK_EVENTS',
  },
] as const;
const WANTED = '1';

const PROC = '/proc';

/** Sets what is not as it has to be. Says of each setting what could not be done; undefined: it is as it has to be. */
export function applySettings(proc: string = PROC): ReadonlyMap<string, SondeError | undefined> {
  return new Map(SETTINGS.map((each) => [each.setting, apply(each, join(proc, 'sys/net/netfilter', each.setting))]));
}

function apply({ setting, lost, option }: (typeof SETTINGS)[number], file: string): SondeError | undefined {
  let found: string;
  try {
    found = readFileSync(file, 'utf8').trim();
  } catch (cause) {
    return new SondeError('CONNTRACK_SETTING_MISSING', { setting, lost, option }, { cause });
  }
  if (found === WANTED) return undefined;
  try {
    writeFileSync(file, WANTED);
    return undefined;
  } catch (cause) {
    const why = (cause as NodeJS.ErrnoException).code ?? String(cause);
    return new SondeError('CONNTRACK_SETTING_REFUSED', { setting, found, wanted: WANTED, why, lost }, { cause });
  }
}

/** The table as a whole. */
export interface TableCounts {
  /** Of this network namespace. */
  readonly entries: number;
  /** Most entries, of each namespace; set by the first one. */
  readonly most: number;
  /** Connections that found no place because an equal one was there, since the namespace is there. */
  readonly insertFailed: number;
  /** Packets that found no place in a full table. */
  readonly dropped: number;
  /** Connections that were ended early to make room for others. */
  readonly earlyDropped: number;
}

/** What the kernel says of its table; 0 where it does not. */
export function readTableCounts(proc: string = PROC): TableCounts {
  const statistics = parseStatistics(read(join(proc, 'net/stat/nf_conntrack')));
  const number = (name: string): number => Number(read(join(proc, 'sys/net/netfilter', name)).trim()) || 0;
  return {
    entries: number('nf_conntrack_count'),
    most: number('nf_conntrack_max'),
    insertFailed: statistics.insert_failed ?? 0,
    dropped: statistics.drop ?? 0,
    earlyDropped: statistics.early_drop ?? 0,
  };
}

/** A line of names, then a line a CPU of hexadecimal numbers: net/netfilter/nf_conntrack_standalone.c, ct_cpu_seq_show. The sums, by name. */
export function parseStatistics(text: string): Readonly<Record<string, number>> {
  const [head = '', ...lines] = text.trim().split('\n');
  const names = head.trim().split(/\s+/);
  const sums: Record<string, number> = {};
  for (const line of lines)
    for (const [at, value] of line.trim().split(/\s+/).entries()) {
      const name = names[at];
      if (name !== undefined) sums[name] = (sums[name] ?? 0) + (Number.parseInt(value, 16) || 0);
    }
  return sums;
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

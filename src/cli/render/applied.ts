import type { ApplyAnswer } from '../../api/schemas.ts';

/** What applying or deleting did: a line a document that changes, and how far the hosts are. Pure. */
export function renderApplied({ changes, dryRun, revision, realized, hosts }: ApplyAnswer): string {
  const changed = changes.filter(({ operation }) => operation !== 'unchanged');
  const same = changes.length - changed.length;
  const lines = changed.map(({ kind, name, operation }) => `${operation.padEnd(8)} ${kind}/${name}`);
  if (same > 0) lines.push(`${same} of ${changes.length} unchanged`);
  if (changes.length === 0) lines.push('no documents');
  if (dryRun) lines.push('dry run: nothing was applied');
  else if (realized === null) lines.push(`revision ${revision}`);
  else {
    const alive = hosts.filter((host) => host.alive);
    const names = alive.filter((host) => host.realized).map(({ host }) => host);
    const how = realized ? 'realized' : 'not realized everywhere';
    lines.push(
      `revision ${revision} ${alive.length === 0 ? 'waits: no host is alive' : how}${names.length === 0 ? '' : ` on ${names.join(', ')}`}`,
    );
    for (const { host, alive: isAlive, realized: isRealized, revision: at, error } of hosts) {
      if (isRealized) continue;
      const why = !isAlive ? 'its agent is silent' : (error?.message ?? `it is at revision ${at}`);
      lines.push(`  ${host}: ${why}`);
    }
  }
  return `${lines.join('\n')}\n`;
}

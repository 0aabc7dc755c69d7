const MOST = 3;

/** Names that are a slip of the keyboard away from `text`, or that begin with it; nearest first, at most three. */
export function nearestNames(text: string, names: Iterable<string>): readonly string[] {
  const limit = Math.max(2, Math.floor(text.length / 3));
  return [...new Set(names)]
    .map((name) => ({ name, distance: name.startsWith(text) ? 0 : editDistance(text, name) }))
    .filter(({ distance }) => distance <= limit)
    .toSorted((a, b) => a.distance - b.distance || (a.name < b.name ? -1 : 1))
    .slice(0, MOST)
    .map(({ name }) => name);
}

/** Levenshtein's distance: fewest insertions, deletions and replacements of one character. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(replace, (previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1));
    }
    previous = row;
  }
  return previous[b.length] ?? 0;
}

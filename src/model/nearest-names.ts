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

/** Fewest insertions, deletions, replacements and swaps of neighbours (optimal string alignment): a swap is one slip of the keyboard. */
function editDistance(a: string, b: string): number {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      let distance = Math.min(replaced, (previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1);
      const isSwapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (isSwapped) distance = Math.min(distance, (beforePrevious[j - 2] ?? 0) + 1);
      row.push(distance);
    }
    beforePrevious = previous;
    previous = row;
  }
  return previous[b.length] ?? 0;
}

import { styleText } from 'node:util';
import { clean } from './values.ts';

export interface Column<Row> {
  readonly title: string;
  readonly of: (row: Row) => string;
  /** Numbers stand to the right. */
  readonly right?: true;
}

/** Aligned columns under their titles, two spaces apart, a newline after each line; `-` where there is nothing. Pure. */
export function renderTable<Row>(
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  { colour }: { readonly colour: boolean },
): string {
  const cells = rows.map((row) => columns.map((column) => clean(column.of(row)) || '-'));
  const titles = columns.map((column) => column.title);
  const widths = titles.map((title, i) => Math.max(title.length, ...cells.map((row) => row[i]?.length ?? 0)));
  const line = (texts: readonly string[]): string =>
    texts
      .map((text, i) => (columns[i]?.right ? text.padStart(widths[i] ?? 0) : text.padEnd(widths[i] ?? 0)))
      .join('  ')
      .trimEnd();
  const head = line(titles);
  return [colour ? styleText('bold', head, { validateStream: false }) : head, ...cells.map(line), ''].join('\n');
}

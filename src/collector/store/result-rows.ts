const WIDE_INTEGER = /^(?:Nullable\()?U?Int64\)?$/;

/** Rows of ClickHouse's JSONCompactEachRowWithNamesAndTypes, with 64-bit integers quoted, as objects; such an integer becomes a number where a number holds it exactly. */
export function parseRows<Row>(text: string): Row[] {
  const [names, types, ...rows] = text.split('\n').filter((line) => line !== '');
  if (names === undefined || types === undefined) return [];
  const keys = JSON.parse(names) as string[];
  const wide = (JSON.parse(types) as string[]).map((type) => WIDE_INTEGER.test(type));
  return rows.map((line) => {
    const cells = JSON.parse(line) as unknown[];
    return Object.fromEntries(keys.map((key, i) => [key, wide[i] ? narrow(cells[i]) : cells[i]])) as Row;
  });
}

function narrow(cell: unknown): unknown {
  const value = Number(cell);
  return typeof cell === 'string' && Number.isSafeInteger(value) ? value : cell;
}

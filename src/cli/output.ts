import { once } from 'node:events';
import { type Column, renderTable } from './render/table.ts';

export type OutputFormat = 'table' | 'json' | 'yaml' | 'ndjson' | 'csv' | 'compact';

/** Whether standard output shows colours: a terminal, and nobody asked for none (https://no-color.org). */
export function showsColour(): boolean {
  return process.stdout.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== 'dumb';
}

export function print(text: string): void {
  process.stdout.write(text);
}

/** @param empty what to say instead of a table without lines, on standard error: programs that read the table get none. */
export function printTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[], empty: string): void {
  if (rows.length === 0) process.stderr.write(`${empty}\n`);
  else print(renderTable(columns, rows, { colour: showsColour() }));
}

export function printJson(value: unknown): void {
  print(`${JSON.stringify(value, null, 2)}\n`);
}

/** A document an element, apart by `---`. */
export async function printYaml(values: readonly unknown[]): Promise<void> {
  const { stringify } = await import('yaml');
  print(values.map((value) => stringify(value)).join('---\n'));
}

/** To standard output, no faster than it is read. */
export async function writeOut(piece: Uint8Array): Promise<void> {
  if (!process.stdout.write(piece)) await once(process.stdout, 'drain');
}

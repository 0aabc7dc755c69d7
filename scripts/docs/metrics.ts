import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { MetricTable } from '../../src/telemetry/metrics.ts';
import { ROOT, type SourceFile } from './sources.ts';

export interface DocumentedMetric {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly labels: readonly string[];
  /** File that counts. */
  readonly path: string;
}

const LITERAL = /(['"`])(sonde_[a-z0-9_]+)\1/g;
const TEXT = String.raw`\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")`;

/** Names of metrics that a file mentions. */
export function metricNames({ text }: SourceFile): readonly string[] {
  const keys = [...text.matchAll(/^\s*(sonde_[a-z0-9_]+): \{/gm)].map((match) => match[1]!);
  return [...new Set([...keys, ...[...text.matchAll(LITERAL)].map((match) => match[2]!)])];
}

/**
 * The metrics that a file registers: those of its table METRICS, and those that it makes of prom-client's classes or by a short function of a name and a
 * help text. Throws where it does neither in a way that can be read here.
 */
export async function metricsOf(file: SourceFile): Promise<readonly DocumentedMetric[]> {
  const { path, text } = file;
  if (text.includes('export const METRICS = {')) {
    const { METRICS } = (await import(pathToFileURL(join(ROOT, path)).href)) as { METRICS: MetricTable };
    return Object.entries(METRICS).map(([name, { type, help, labels = {} }]) => ({
      name,
      type,
      help,
      labels: Object.keys(labels),
      path,
    }));
  }
  return metricNames(file).map((name) => {
    const at = text.indexOf(name) - 1;
    const made = /new (Counter|Gauge|Histogram)(?:<[^>]*>)?\(\{\s*name: $/.exec(text.slice(0, at));
    if (made !== null) {
      const body = objectAt(text, at - made[0].length + made[0].indexOf('{'));
      return {
        name,
        type: made[1]!.toLowerCase(),
        help: textAfter(body, 'help:', name, path),
        labels: labelsOf(body),
        path,
      };
    }
    const called = /\b(counter|gauge|histogram)\(\s*$/.exec(text.slice(0, at));
    if (called !== null) {
      return { name, type: called[1]!, help: textAfter(text.slice(at), `'${name}',`, name, path), labels: [], path };
    }
    throw new Error(`${path}: metric ${name} is in no table METRICS (see src/telemetry/metrics.ts)`);
  });
}

function textAfter(text: string, lead: string, name: string, path: string): string {
  const found = new RegExp(lead + TEXT).exec(text);
  const help = found?.[1] ?? found?.[2];
  if (help === undefined) throw new Error(`${path}: metric ${name} has no help text that can be read`);
  return help.replace(/\\(.)/g, '$1');
}

function labelsOf(body: string): readonly string[] {
  const list = /labelNames:\s*\[([^\]]*)\]/.exec(body)?.[1] ?? '';
  return [...list.matchAll(/'([a-z_]+)'/g)].map((match) => match[1]!);
}

/** From an opening brace to its closing one. */
function objectAt(text: string, start: number): string {
  let depth = 0;
  for (let i = start; i < text.length; i++) {
    if (text[i] === '{') depth++;
    if (text[i] === '}' && --depth === 0) return text.slice(start, i + 1);
  }
  return text.slice(start);
}

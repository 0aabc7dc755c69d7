import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const ROOT = join(import.meta.dirname, '..', '..');
const FOLDER = join(ROOT, 'dashboards');
/** Every metric that a process exposes; the page is generated from the code and held up to date by its own test. */
const METRICS = new Set(readFileSync(join(ROOT, 'docs', 'metrics.md'), 'utf8').match(/(?<=^\| `)sonde_\w+/gm));

interface Dashboard {
  readonly panels: readonly {
    readonly title: string;
    readonly description: string;
    readonly gridPos: { readonly x: number; readonly y: number };
    readonly targets: readonly { readonly expr: string }[];
  }[];
}

describe.each(readdirSync(FOLDER).filter((name) => name.endsWith('.json')))('%s', (file) => {
  const { panels } = JSON.parse(readFileSync(join(FOLDER, file), 'utf8')) as Dashboard;

  it.each(panels.map((panel) => [panel.title, panel] as const))('%s asks for metrics that there are', (_, panel) => {
    expect(panel.description).not.toBe('');
    for (const { expr } of panel.targets) {
      const names = expr.match(/sonde_\w+/g) ?? [];
      expect(names.length, expr).toBeGreaterThan(0);
      for (const name of names) expect(METRICS, expr).toContain(name.replace(/_bucket$/, ''));
    }
  });

  it('puts no panel on another', () => {
    const places = panels.map(({ gridPos }) => `${gridPos.x}/${gridPos.y}`);
    expect(new Set(places).size).toBe(places.length);
  });
});

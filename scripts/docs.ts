/**
 * `npm run docs`: writes the pages that are made from tables in the sources. With `--check` it writes nothing, and fails where one of them is not up to
 * date.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { PAGES } from './docs/pages.ts';
import { ROOT } from './docs/sources.ts';

const isCheck = process.argv.includes('--check');
const stale: string[] = [];
for (const [path, make] of Object.entries(PAGES)) {
  const file = join(ROOT, path);
  const wanted = await make();
  if (wanted === read(file)) continue;
  stale.push(path);
  if (isCheck) continue;
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, wanted);
}
if (!isCheck) console.log(stale.length === 0 ? 'all pages were up to date' : `wrote ${stale.join(', ')}`);
else if (stale.length > 0) {
  console.error(`not up to date: ${stale.join(', ')}. Run: npm run docs`);
  process.exitCode = 1;
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

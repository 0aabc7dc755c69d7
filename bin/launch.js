const SOURCES = {
  sonde: () => import('../src/cli/sonde.ts'),
  trace: () => import('../src/cli/trace.ts'),
};

/** An installed package has JavaScript in dist, since Node strips no types under node_modules; a checkout runs its sources. */
export async function launch(name) {
  if (import.meta.url.includes('/node_modules/')) await import(`../dist/cli/${name}.js`);
  else await SOURCES[name]();
}

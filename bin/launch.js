/** An installed package has JavaScript in dist, since Node strips no types under node_modules; a checkout runs its sources. */
export async function launch(name) {
  const isInstalled = import.meta.url.includes('/node_modules/');
  await import(isInstalled ? `../dist/cli/${name}.js` : `../src/cli/${name}.ts`);
}

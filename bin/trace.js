#!/usr/bin/env node
// Old versions of Node read this file too, so it uses nothing that they do not know.
var found = process.versions.node;
if (Number(found.split('.')[0]) < 24) {
  console.error(
    `trace needs Node 24 or later, and this is Node ${found}. Inside a checkout, \`npx trace\` uses the right one.`,
  );
  process.exitCode = 2;
} else {
  import('./launch.js').then((launcher) => launcher.launch('trace'));
}

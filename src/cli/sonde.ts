import { Command } from 'commander';
import { VERSION } from '../config/version.ts';
import { agentCommand } from './commands/agent.ts';
import { applyCommand } from './commands/apply.ts';
import { configCommand } from './commands/config.ts';
import { connectionsCommand } from './commands/connections.ts';
import { deleteCommand } from './commands/delete.ts';
import { flowsCommand } from './commands/flows.ts';
import { getCommand } from './commands/get.ts';
import { labCommand } from './commands/lab.ts';
import { ledgerCommand } from './commands/ledger.ts';
import { serverCommand } from './commands/server.ts';
import { sqlCommand } from './commands/sql.ts';
import { topCommand } from './commands/top.ts';
import { traceCommand } from './commands/trace.ts';
import { run } from './run.ts';

const DEMO = 'bring up two hosts, six VMs and everything of Sonde on this machine, and show what it does';

/** The demo needs the lab and more: it is loaded where it is wanted, so that other commands start fast. */
async function demoCommand(): Promise<Command> {
  if (!process.argv.includes('demo')) return new Command('demo').description(DEMO);
  return (await import('./commands/demo.ts')).demoCommand();
}

const program = new Command('sonde')
  .description('Shows, traces and steers virtual networks from the hypervisor.')
  .version(VERSION)
  .addHelpText(
    'after',
    '\nExit status: 0 done, 1 refused or not so, 2 usage or no answer. Options of each command may also come from SONDE_* variables or a file (--config).',
  );
for (const command of [
  applyCommand(),
  getCommand(),
  deleteCommand(),
  flowsCommand(),
  topCommand(),
  connectionsCommand(),
  ledgerCommand(),
  sqlCommand(),
  traceCommand(),
  serverCommand(),
  agentCommand(),
  configCommand(),
  labCommand(),
  await demoCommand(),
]) {
  program.addCommand(command);
}
await run(program, process.argv);

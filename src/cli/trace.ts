import { VERSION } from '../config/version.ts';
import { traceCommand } from './commands/trace.ts';
import { run } from './run.ts';

await run(traceCommand().version(VERSION), process.argv);

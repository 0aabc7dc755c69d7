import { Command } from 'commander';
import { addConfigFlags, configOf } from '../flags.ts';

export function serverCommand(): Command {
  const command = new Command('server').description('run the server, until SIGINT or SIGTERM');
  return addConfigFlags(command, 'server').action(async (flags: Record<string, unknown>) => {
    const { config } = await configOf('server', flags);
    const [{ Registry }, { createServer }, { VERSION }, telemetry, run] = await Promise.all([
      import('prom-client'),
      import('../../server.ts'),
      import('../../config/version.ts'),
      import('../../telemetry/process.ts'),
      import('../run-process.ts'),
    ]);
    const registry = new Registry();
    const { log, tracing } = await telemetry.startTelemetry(
      { process: 'server', version: VERSION, level: config.logLevel },
      registry,
    );
    const server = createServer(config, { log, metrics: registry });
    const parts = [
      { name: 'tracing', start: async () => {}, stop: tracing.stop },
      { name: 'server', start: () => server.start(), stop: () => server.stop() },
    ];
    await run.runProcess(parts, log);
  });
}

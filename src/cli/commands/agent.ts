import { Command } from 'commander';
import { kafkaSettingsOf } from '../../config/kafka.ts';
import { addConfigFlags, configOf } from '../flags.ts';
import type { Part } from '../run-process.ts';

export function agentCommand(): Command {
  const command = new Command('agent').description('run the agent of this host, until SIGINT or SIGTERM');
  return addConfigFlags(command, 'agent').action(async (flags: Record<string, unknown>) => {
    const { config } = await configOf('agent', flags);
    const [
      { Registry },
      { createAgent },
      { createTcpListener },
      { createRemoteBus },
      { VERSION },
      { claimSwitch },
      telemetry,
      run,
    ] = await Promise.all([
      import('prom-client'),
      import('../../agent.ts'),
      import('../../api/listeners.ts'),
      import('../../bus/remote.ts'),
      import('../../config/version.ts'),
      import('../../link/sole-agent.ts'),
      import('../../telemetry/process.ts'),
      import('../run-process.ts'),
    ]);
    const registry = new Registry();
    const { log, tracing } = await telemetry.startTelemetry(
      { process: 'agent', version: VERSION, level: config.logLevel },
      registry,
    );
    const { server, token, metricsListen } = config;
    const kafka = kafkaSettingsOf(config);
    const bus =
      kafka === undefined
        ? createRemoteBus(
            { url: busUrlOf(server), ...(token === undefined ? {} : { token }) },
            { log, metrics: registry },
          )
        : (await import('../../bus/kafka.ts')).createKafkaBus(
            { ...kafka, clientId: `sonde-agent-${config.host}` },
            { log, metrics: registry },
          );
    const agent = createAgent(config, { bus, log, metrics: registry });
    const parts: Part[] = [{ name: 'tracing', start: async () => {}, stop: tracing.stop }];
    let release: (() => Promise<void>) | undefined;
    // Before the metrics: their address is the other agent's too, and is not what stands in the way.
    parts.push({
      name: 'claim on the switch',
      start: async () => {
        release = await claimSwitch(config.ovsDatabase);
      },
      stop: async () => release?.(),
    });
    if (metricsListen !== undefined) {
      const listener = createTcpListener(metricsListen, telemetry.metricsHandler(registry));
      const start = async (): Promise<void> => log.info({ address: await listener.listen() }, 'metrics are served');
      parts.push({ name: 'metrics', start, stop: listener.close });
    }
    parts.push({ name: 'bus', start: () => bus.start(), stop: () => bus.stop() });
    parts.push({ name: 'agent', start: () => agent.start(), stop: () => agent.stop() });
    await run.runProcess(parts, log);
  });
}

/** The bus is beside the API: `http://host:port` -> `ws://host:port/bus`, `unix:/path` -> `ws+unix:/path:/bus`. */
export function busUrlOf(server: string): string {
  return server.startsWith('unix:') ? `ws+${server}:/bus` : `${server.replace(/^http/, 'ws')}/bus`;
}

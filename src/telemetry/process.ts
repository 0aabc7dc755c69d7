import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { createLogger, type LogLevel } from './logger.ts';
import { type BuildInfo, registerProcessMetrics } from './process-metrics.ts';
import { startTracing, type Tracing } from './tracing.ts';

/** What every process of Sonde begins with: its log, the metrics of the process, and spans where somebody collects them. */
export async function startTelemetry(
  { level, ...build }: BuildInfo & { readonly level: LogLevel },
  registry: Registry,
): Promise<{ readonly log: Logger; readonly tracing: Tracing }> {
  registerProcessMetrics(registry, build);
  const tracing = await startTracing({ serviceName: `sonde-${build.process}`, version: build.version });
  return { log: createLogger({ level, process: build.process }), tracing };
}

/** /metrics and /healthz of a process that has no API. */
export function metricsHandler(registry: Registry): (request: IncomingMessage, response: ServerResponse) => void {
  return (request, response) => {
    const path = request.url?.split('?', 1)[0];
    if (path === '/healthz') response.setHeader('content-type', 'application/json').end('{"healthy":true}');
    else if (path !== '/metrics') response.writeHead(404).end('There is /metrics and /healthz.\n');
    else {
      registry.metrics().then(
        (text) => response.setHeader('content-type', registry.contentType).end(text),
        (error: Error) => response.writeHead(500).end(`${error.message}\n`),
      );
    }
  };
}

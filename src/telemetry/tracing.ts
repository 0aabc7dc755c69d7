/**
 * OpenTelemetry for whoever has a collector. Components put spans through `@opentelemetry/api`, which does nothing until an SDK is started; the SDK
 * is loaded only where the environment names a collector, so that without one it costs neither time nor memory.
 */

export interface TracingConfig {
  /** `service.name`, unless OTEL_SERVICE_NAME says otherwise. */
  readonly serviceName: string;
  readonly version: string;
}

export interface Tracing {
  readonly enabled: boolean;
  /** Sends what is left, for a few seconds at most. */
  stop(): Promise<void>;
}

/** Longest wait for a collector that does not answer, in milliseconds. */
const FLUSH_MS = 3000;

/** Starts the SDK where OTEL_EXPORTER_OTLP_ENDPOINT is set; the other variables of the OpenTelemetry specification hold too. */
export async function startTracing(config: TracingConfig, env: NodeJS.ProcessEnv = process.env): Promise<Tracing> {
  if (!env.OTEL_EXPORTER_OTLP_ENDPOINT) return { enabled: false, stop: async () => {} };
  const { NodeSDK, resources } = await import('@opentelemetry/sdk-node');
  const sdk = new NodeSDK({
    serviceName: env.OTEL_SERVICE_NAME ?? config.serviceName,
    resource: resources.resourceFromAttributes({ 'service.version': config.version }),
    // Prometheus reads the metrics, and the log goes to standard error.
    metricReaders: [],
    logRecordProcessors: [],
  });
  sdk.start();
  return {
    enabled: true,
    async stop() {
      const { promise: late, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, FLUSH_MS);
      // A collector that is gone must not keep the process from ending.
      await Promise.race([sdk.shutdown().catch(() => {}), late]);
      clearTimeout(timer);
    },
  };
}

import type { MetricTable } from '../telemetry/metrics.ts';

export const METRICS = {
  sonde_api_requests_total: {
    type: 'counter',
    help: 'Requests answered, by route, method and status.',
    labels: { route: 'open', method: 'open', status: 'open' },
  },
  sonde_api_request_duration_seconds: {
    type: 'histogram',
    help: 'Time from a request to the end of its answer.',
    labels: { route: 'open' },
    buckets: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
  },
  sonde_api_refused_total: {
    type: 'counter',
    help: 'Requests without the right token (API_UNAUTHORIZED) or from a foreign page (API_ORIGIN_REFUSED).',
    labels: { code: ['API_UNAUTHORIZED', 'API_ORIGIN_REFUSED'] },
  },
  sonde_api_failures_total: {
    type: 'counter',
    help: 'Requests that failed by a fault of the server.',
  },
} as const satisfies MetricTable;

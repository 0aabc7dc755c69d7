import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/**
 * One metric of a component's table. Names follow Prometheus' conventions: prefix `sonde_`, base units in the plural, counters end in `_total`.
 * A component exports its table as `METRICS`, beside the code that counts, and `docs/metrics.md` is made from those tables.
 */
interface MetricSpec {
  readonly type: 'counter' | 'gauge' | 'histogram';
  /** One sentence: what it counts, and in which unit. */
  readonly help: string;
  /** By label: its values where they are known beforehand, so that each series is there at 0 before its first event; 'open' where they are not. */
  readonly labels?: Readonly<Record<string, readonly string[] | 'open'>>;
  /** Upper bounds; histograms only. Default: LATENCY_BUCKETS. */
  readonly buckets?: readonly number[];
}

export type MetricTable = Readonly<Record<`sonde_${string}`, MetricSpec>>;

type LabelsOf<S> = S extends { readonly labels: infer L } ? Extract<keyof L, string> : never;

type HandleOf<S> = S extends { readonly type: 'counter' }
  ? Counter<LabelsOf<S>>
  : S extends { readonly type: 'gauge' }
    ? Gauge<LabelsOf<S>>
    : Histogram<LabelsOf<S>>;

/** What a component counts with. */
export type Metrics<T extends MetricTable> = { readonly [N in keyof T]: HandleOf<T[N]> };

/** Seconds, 50 us to 1.6 s by factor 2. */
const LATENCY_BUCKETS = Array.from({ length: 16 }, (_, i) => (50 * 2 ** i) / 1e6);

/** Registers the metrics of a table. Throws where a name is registered already. */
export function createMetrics<const T extends MetricTable>(registry: Registry, table: T): Metrics<T> {
  return Object.fromEntries(
    Object.entries<MetricSpec>(table).map(([name, spec]) => [name, create(registry, name, spec)]),
  ) as Metrics<T>;
}

/**
 * What a total, counted elsewhere, has grown by since the last time under its name: counters only grow by steps. One that falls, as what was lost and came late,
 * grows again from its highest.
 */
export function createSteps(): (name: string, total: number) => number {
  const highest = new Map<string, number>();
  return (name, total) => {
    const last = highest.get(name) ?? 0;
    highest.set(name, Math.max(last, total));
    return Math.max(0, total - last);
  };
}

function create(registry: Registry, name: string, { type, help, labels = {}, buckets }: MetricSpec) {
  const common = { name, help, labelNames: Object.keys(labels), registers: [registry] };
  const series = combinations(labels);
  switch (type) {
    case 'counter': {
      const counter = new Counter(common);
      for (const each of series) counter.inc(each, 0);
      return counter;
    }
    case 'gauge': {
      const gauge = new Gauge(common);
      for (const each of series) gauge.set(each, 0);
      return gauge;
    }
    case 'histogram': {
      const histogram = new Histogram({ ...common, buckets: [...(buckets ?? LATENCY_BUCKETS)] });
      for (const each of series) histogram.zero(each);
      return histogram;
    }
  }
}

/** Every combination of the labels' known values; none where one of them is open. */
function combinations(labels: NonNullable<MetricSpec['labels']>): Record<string, string>[] {
  let series: Record<string, string>[] = [{}];
  for (const [label, values] of Object.entries(labels)) {
    if (values === 'open') return [];
    series = series.flatMap((each) => values.map((value) => ({ ...each, [label]: value })));
  }
  return series;
}

import { readFile } from 'node:fs/promises';
import type { Registry } from 'prom-client';
import { SondeError } from '../model/errors.ts';
import { createMetrics, type MetricTable } from '../telemetry/metrics.ts';
import { formatIpv4 } from '../wire/address.ts';
import { parseRouteTable, routeTo } from './route-table.ts';

/** What Geneve adds to a guest's packet: Ethernet, IPv4, UDP and Geneve headers. RFC 8926 section 3. */
const TUNNEL_OCTETS = 50;
/** A traced packet has an option more: see TRACE_OPTION. */
const TRACED_OCTETS = 62;

export const METRICS = {
  sonde_underlay_mtu_octets: {
    type: 'gauge',
    help: 'MTU of the device by which the kernel routes to the other hosts, the smallest where there are several; 0 while none is known.',
  },
  sonde_underlay_mtu_missing_octets: {
    type: 'gauge',
    help: 'By how much that is less than the largest MTU of a vNIC of this host and what a tunnel adds to it (50 octets): packets of full size do not reach other hosts. 0: it is enough.',
  },
} as const satisfies MetricTable;

export interface UnderlayMtuDeps {
  /** Underlay addresses of the other hosts. */
  readonly peers: () => Iterable<number>;
  /** MTUs of the vNICs of this host. */
  readonly inner: () => Iterable<number>;
  readonly metrics: Registry;
  /** What stands now; undefined: nothing is wrong. */
  readonly onState: (error: SondeError | undefined) => void;
  /** Default: the kernel's own files. */
  readonly read?: (path: string) => Promise<string>;
}

export interface UnderlayFinding {
  readonly device: string;
  readonly mtu: number;
  /** The largest of the vNICs. */
  readonly inner: number;
  readonly peer: number;
}

/**
 * Watches whether what guests send fits the way to the other hosts. The kernel's tunnel drops what does not, with DF set and without a word to the guest. Inert until `start`.
 */
export function createUnderlayMtu({ everyMs }: { readonly everyMs: number }, deps: UnderlayMtuDeps) {
  const read = deps.read ?? ((path: string) => readFile(path, 'utf8'));
  const metrics = createMetrics(deps.metrics, METRICS);
  let timer: NodeJS.Timeout | undefined;
  let looking: Promise<void> | undefined;

  /** The narrowest way to a peer; undefined where there is no peer, no way, or no vNIC. */
  async function find(): Promise<UnderlayFinding | undefined> {
    const inner = Math.max(0, ...deps.inner());
    const peers = new Set(deps.peers());
    if (peers.size === 0 || inner === 0) return undefined;
    const routes = parseRouteTable(await read('/proc/net/route'));
    const mtus = new Map<string, number>();
    let narrowest: UnderlayFinding | undefined;
    for (const peer of peers) {
      const route = routeTo(routes, peer);
      if (route === undefined) continue;
      const mtu = mtus.get(route.device) ?? Number(await read(`/sys/class/net/${route.device}/mtu`));
      mtus.set(route.device, mtu);
      if (mtu > 0 && (narrowest === undefined || mtu < narrowest.mtu))
        narrowest = { device: route.device, mtu, inner, peer };
    }
    return narrowest;
  }

  async function look(): Promise<void> {
    // A device may go between the two reads; the next look tells.
    const found = await find().catch(() => undefined);
    metrics.sonde_underlay_mtu_octets.set(found?.mtu ?? 0);
    const missing = found === undefined ? 0 : Math.max(0, found.inner + TUNNEL_OCTETS - found.mtu);
    metrics.sonde_underlay_mtu_missing_octets.set(missing);
    if (found === undefined || found.mtu >= found.inner + TRACED_OCTETS) {
      deps.onState(undefined);
      return;
    }
    const { device, mtu, inner, peer } = found;
    const details = { device, mtu, inner, peer: formatIpv4(peer) };
    deps.onState(
      missing > 0
        ? new SondeError('UNDERLAY_MTU_SMALL', { ...details, needed: inner + TUNNEL_OCTETS })
        : new SondeError('UNDERLAY_MTU_TIGHT', { ...details, needed: inner + TRACED_OCTETS }),
    );
  }

  const lookOnce = (): Promise<void> => {
    looking ??= look().finally(() => {
      looking = undefined;
    });
    return looking;
  };

  return {
    /** Looks now. */
    look: lookOnce,
    start(): void {
      timer = setInterval(lookOnce, everyMs);
      void lookOnce();
    },
    async stop(): Promise<void> {
      clearInterval(timer);
      await looking;
    },
  };
}

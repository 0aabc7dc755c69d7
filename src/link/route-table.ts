/** A route of the kernel's main IPv4 table. */
export interface KernelRoute {
  /** `*` where the kernel refuses to route. */
  readonly device: string;
  /** Host order. */
  readonly address: number;
  readonly mask: number;
  readonly metric: number;
}

const UP = 0x1;
const COLUMNS = 8;

/**
 * Reads /proc/net/route (net/ipv4/fib_trie.c, fib_route_seq_show): tab-separated, addresses and masks in hexadecimal as a little-endian machine holds them. Lines that are
 * no routes are left out. Its column MTU is not that of a route: it is made of the advertised segment size. Pure.
 */
export function parseRouteTable(text: string): readonly KernelRoute[] {
  return text.split('\n').flatMap((line): KernelRoute[] => {
    const fields = line.trim().split(/\s+/);
    const [device = '', destination = '', , flags = '', , , metric = '', mask = ''] = fields;
    if (fields.length < COLUMNS || !/^[0-9A-F]{8}$/.test(destination) || !/^[0-9A-F]{8}$/.test(mask)) return [];
    if ((Number.parseInt(flags, 16) & UP) === 0) return [];
    return [
      {
        device,
        address: swap(Number.parseInt(destination, 16)),
        mask: swap(Number.parseInt(mask, 16)),
        metric: Number(metric),
      },
    ];
  });
}

/** The route that the kernel takes: the longest prefix, of those the lowest metric; undefined where it has none or refuses. */
export function routeTo(routes: readonly KernelRoute[], address: number): KernelRoute | undefined {
  let best: KernelRoute | undefined;
  for (const route of routes) {
    if ((address & route.mask) >>> 0 !== route.address) continue;
    if (best === undefined || route.mask > best.mask || (route.mask === best.mask && route.metric < best.metric))
      best = route;
  }
  return best?.device === '*' ? undefined : best;
}

function swap(value: number): number {
  return ((value >>> 24) | ((value >>> 8) & 0xff00) | ((value << 8) & 0xff0000) | (value << 24)) >>> 0;
}

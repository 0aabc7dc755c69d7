import type { FlowRow } from '../../src/model/flow.ts';
import { flowRow } from './flow-rows.ts';

/** Numbers in [0, 1) that are the same in each run (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const REASONS = ['POLICY_DENY', 'DEFAULT_DENY'];

/**
 * Rows of random connections between VMs and with peers that nobody manages, from both sides or from one, of which nobody saw some open. What names a VM differs
 * from VM to VM: `vm-3` has the iface-id `e-3` and the uuid `u-3`. `number` counts the rows from 0.
 * @param start microseconds since the epoch; rows end within `span` microseconds of it
 */
export function randomFlows({
  start,
  span,
  connections,
  vms = 9,
  seed = 1,
}: {
  readonly start: number;
  readonly span: number;
  readonly connections: number;
  readonly vms?: number;
  readonly seed?: number;
}): FlowRow[] {
  const random = randomFrom(seed);
  const below = (n: number): number => Math.floor(random() * n);
  const rows: FlowRow[] = [];
  const add = (cells: Partial<FlowRow>): void => void rows.push(flowRow({ ...cells, number: rows.length }));
  const own = (i: number): Partial<FlowRow> => ({
    vm: `vm-${i}`,
    vm_uuid: `u-${i}`,
    endpoint: `e-${i}`,
    host: `h-${i % 4}`,
    project: `p-${i % 3}`,
    application: i % 5 === 0 ? '' : `a-${i % 4}`,
    network: `n-${i % 2}`,
    local_address: 0x0a000000 + i,
  });
  const peer = (i: number): Partial<FlowRow> => ({
    peer_vm: `vm-${i}`,
    peer_vm_uuid: `u-${i}`,
    peer_endpoint: `e-${i}`,
    peer_host: `h-${i % 4}`,
    peer_project: `p-${i % 3}`,
    peer_application: i % 5 === 0 ? '' : `a-${i % 4}`,
    peer_network: `n-${i % 2}`,
    peer_address: 0x0a000000 + i,
  });
  for (let connection = 1; connection <= connections; connection++) {
    const client = below(vms);
    const server = below(vms);
    const isManaged = random() < 0.8;
    const isSeen = random() < 0.8;
    const port = [53, 80, 443][below(3)] as number;
    const verdict = ['allow', 'allow', 'deny'][below(3)] as string;
    const common = {
      connection: BigInt(connection),
      protocol: port === 53 ? 17 : 6,
      verdict,
      rule: verdict === 'deny' ? '' : `shop/r${below(3)}`,
      policy: verdict === 'deny' ? '' : 'shop',
      reason: verdict === 'deny' ? (REASONS[below(2)] as string) : '',
    };
    for (let interval = 0; interval <= below(3); interval++) {
      const counts = () => ({
        time: start + below(span),
        tx_octets: below(10_000),
        rx_octets: below(10_000),
        tx_packets: below(10),
        rx_packets: below(10),
        drop_packets: below(3),
      });
      const ends = { local_port: 40_000 + (connection % 1000), peer_port: port };
      const side = (name: string): { side: string } => ({ side: isSeen ? name : 'unknown' });
      add({
        ...common,
        ...own(client),
        ...(isManaged ? peer(server) : { peer_address: 0x08080808 }),
        ...ends,
        ...side('client'),
        ...counts(),
      });
      // A row of the other side may be missing, of a connection that somebody saw open.
      if (isManaged && (!isSeen || random() < 0.9))
        add({
          ...common,
          ...own(server),
          ...peer(client),
          local_port: ends.peer_port,
          peer_port: ends.local_port,
          ...side('server'),
          ...counts(),
        });
    }
  }
  return rows;
}

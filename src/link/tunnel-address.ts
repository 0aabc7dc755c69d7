import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { SondeError } from '../model/errors.ts';
import { parseIp } from '../wire/address.ts';
import type { IntegrationBridge } from './integration-bridge.ts';

/** Keys of Open_vSwitch.external_ids that say where tunnels end on this host; the second is OVN's. */
const KEYS = ['sonde-encap-ip', 'ovn-encap-ip'] as const;
const RETRY_MS = 2000;

export interface TunnelAddressDeps {
  readonly bridge: Pick<IntegrationBridge, 'up' | 'events' | 'externalId'>;
  /** The key is missing or is no IPv4 address; it is looked for again. */
  readonly onTrouble: (error: SondeError) => void;
}

/** The host's underlay IPv4 address, which only Open vSwitch can tell; waits for it as long as it takes. */
export async function tunnelAddress(where: string, deps: TunnelAddressDeps): Promise<number> {
  const { bridge } = deps;
  for (;;) {
    if (!bridge.up) await once(bridge.events as never, 'up');
    const text = KEYS.map((key) => bridge.externalId(key)).find((value) => value !== undefined);
    const address = text === undefined ? undefined : parseIp(text);
    if (typeof address === 'number') return address;
    deps.onTrouble(new SondeError('ENCAP_ADDRESS_MISSING', { where, found: text ?? 'nothing' }));
    await sleep(RETRY_MS);
  }
}

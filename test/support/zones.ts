import { createZones, type ZonesDeps } from '../../src/control/zones.ts';
import type { IntegrationBridge } from '../../src/link/integration-bridge.ts';

const NO_SWITCH = { connected: () => true, onConnected: () => {}, flushZone: async () => {} };

/** Gives the vNICs of a bridge zones as the agent does; without a switch that would have to empty them. */
export function keepZones(bridge: IntegrationBridge, peer: ZonesDeps['switch'] = NO_SWITCH) {
  return createZones(
    { where: 'test', keepMs: 600_000 },
    {
      bridge,
      switch: peer,
      monotonic: () => performance.now(),
      onTrouble: (error) => {
        throw error;
      },
      onState: () => {},
    },
  );
}

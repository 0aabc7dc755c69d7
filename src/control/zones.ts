import type { IntegrationBridge } from '../link/integration-bridge.ts';
import { ZONES } from '../model/datapath.ts';
import { SondeError } from '../model/errors.ts';

/** The bridge, as the keeper of zones needs it. */
export type ZoneBridge = Pick<IntegrationBridge, 'up' | 'events' | 'plugged' | 'zoneMap' | 'setZones'>;

export interface ZonesConfig {
  /** Where the map is, for people. */
  readonly where: string;
  /** How long a vNIC that is gone keeps its zone, ms: as long as rows of it can come. */
  readonly keepMs: number;
}

export interface ZonesDeps {
  readonly bridge: ZoneBridge;
  readonly switch: {
    readonly connected: () => boolean;
    readonly onConnected: (listener: () => void) => void;
    /** Forgets the connections of a zone; resolves when the switch has done so. */
    readonly flushZone: (zone: number) => Promise<void>;
  };
  /** Milliseconds of any clock that only goes forward. */
  readonly monotonic: () => number;
  /** Something to tell a person once. */
  readonly onTrouble: (error: SondeError) => void;
  /** What keeps vNICs from having a zone now, and so from being connected; undefined: nothing. */
  readonly onState: (error: SondeError | undefined) => void;
}

const RETRY_MS = 2000;
const LOOK_MS = 60_000;

/**
 * Gives each vNIC of the bridge a conntrack zone, before anything else is done for it, and keeps the map in OVSDB, so that it outlives the agent. A zone is emptied
 * before it is written down: nobody inherits connections, also not when the agent dies in between. Inert until `start`.
 */
export function createZones(config: ZonesConfig, deps: ZonesDeps) {
  const { bridge } = deps;
  /** When a vNIC that is gone was first missed. */
  const missed = new Map<string, number>();
  /** What was written down in this run, in case somebody takes it away. */
  const given = new Map<string, number>();
  /** vNICs for which there is no zone left. */
  let without: ReadonlySet<string> = new Set();
  let last = 0;
  let isRunning = false;
  let isDirty = false;
  let working: Promise<void> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let saidFaulty = '';
  const listeners: (() => void)[] = [];

  function trigger(): void {
    if (!isRunning) return;
    isDirty = true;
    working ??= work().finally(() => {
      working = undefined;
      if (isDirty && timer === undefined) trigger();
    });
  }

  function later(ms: number): void {
    clearTimeout(timer);
    timer = setTimeout(() => {
      timer = undefined;
      trigger();
    }, ms);
  }

  async function work(): Promise<void> {
    clearTimeout(timer);
    timer = undefined;
    while (isDirty && isRunning) {
      isDirty = false;
      if (!bridge.up || !deps.switch.connected()) return;
      try {
        const { wanted, given: fresh } = await settle();
        deps.onState(
          fresh < wanted ? new SondeError('ZONES_EXHAUSTED', { where: config.where, wanted, given: fresh }) : undefined,
        );
      } catch (cause) {
        if (cause instanceof SondeError) deps.onState(cause);
        later(RETRY_MS);
        return;
      }
      for (const listener of listeners) listener();
    }
    if (missed.size > 0) later(Math.min(LOOK_MS, config.keepMs));
  }

  /** How many vNICs wanted a zone that they never had, and got one. */
  async function settle(): Promise<{ wanted: number; given: number }> {
    const { zones, foreign, faulty } = bridge.zoneMap();
    complain(faulty);
    const plugged = new Set(bridge.plugged());
    const now = deps.monotonic();
    for (const ifaceId of plugged) missed.delete(ifaceId);
    const known = [...zones.keys(), ...faulty.map((one) => one.ifaceId)];
    const released = known.filter((ifaceId) => {
      if (plugged.has(ifaceId)) return false;
      const since = missed.get(ifaceId);
      if (since === undefined) missed.set(ifaceId, now);
      return since !== undefined && now - since >= config.keepMs;
    });
    for (const [ifaceId, zone] of zones) given.set(ifaceId, zone);
    for (const ifaceId of released) given.delete(ifaceId);
    const missing = [...plugged].filter((ifaceId) => !zones.has(ifaceId));
    if (missing.length === 0) without = new Set();
    if (missing.length === 0 && released.length === 0) return { wanted: 0, given: 0 };
    const taken = new Set([...zones.values(), ...foreign]);
    const restored = restore(missing, taken);
    const wanted = missing.filter((ifaceId) => !restored.has(ifaceId));
    for (const zone of restored.values()) taken.add(zone);
    const fresh = allocateZones(wanted, taken, last || Math.max(0, ...zones.values()));
    without = new Set(wanted.filter((ifaceId) => !fresh.has(ifaceId)));
    // One after the other: each makes the switch look through the host's whole table of connections.
    for (const zone of fresh.values()) await deps.switch.flushZone(zone);
    await bridge.setZones(new Map([...restored, ...fresh]), released);
    last = [...fresh.values()].at(-1) ?? last;
    for (const ifaceId of released) missed.delete(ifaceId);
    return { wanted: wanted.length, given: fresh.size };
  }

  /** Zones that were written down and have been taken away by somebody: their vNICs keep them, and their connections. */
  function restore(missing: readonly string[], taken: ReadonlySet<number>): ReadonlyMap<string, number> {
    const restored = new Map<string, number>();
    for (const ifaceId of missing) {
      const zone = given.get(ifaceId);
      if (zone === undefined || taken.has(zone)) continue;
      restored.set(ifaceId, zone);
      deps.onTrouble(new SondeError('ZONE_MAP_EDITED', { where: config.where, endpoint: ifaceId, found: 'nothing' }));
    }
    return restored;
  }

  function complain(faulty: readonly { readonly ifaceId: string; readonly value: string }[]): void {
    const said = JSON.stringify(faulty);
    if (said === saidFaulty) return;
    saidFaulty = said;
    for (const { ifaceId, value } of faulty)
      deps.onTrouble(new SondeError('ZONE_MAP_EDITED', { where: config.where, endpoint: ifaceId, found: value }));
  }

  return {
    /** Whether every vNIC has what it can get: before, those without a zone look as if they were gone. */
    settled(): boolean {
      const { zones } = bridge.zoneMap();
      return bridge.plugged().every((ifaceId) => zones.has(ifaceId) || without.has(ifaceId));
    },
    /** Called whenever zones were looked after: also when there is none for somebody, which no other event tells. */
    onSettled(listener: () => void): void {
      listeners.push(listener);
    },
    start(): void {
      isRunning = true;
      bridge.events.on('zones', trigger);
      bridge.events.on('up', trigger);
      deps.switch.onConnected(trigger);
      trigger();
    },
    async stop(): Promise<void> {
      isRunning = false;
      clearTimeout(timer);
      await working;
    },
  };
}

/** Free zones for those who want one, going on behind the last that was given, so that a zone rests as long as it can. Pure. */
export function allocateZones(
  wanted: readonly string[],
  taken: ReadonlySet<number>,
  last: number,
): ReadonlyMap<string, number> {
  const assigned = new Map<string, number>();
  const size = ZONES.last - ZONES.first + 1;
  let at = last < ZONES.first || last > ZONES.last ? size - 1 : last - ZONES.first;
  let tries = size;
  for (const ifaceId of wanted) {
    for (; tries > 0; tries--) {
      at = (at + 1) % size;
      if (taken.has(ZONES.first + at)) continue;
      assigned.set(ifaceId, ZONES.first + at);
      tries--;
      break;
    }
  }
  return assigned;
}

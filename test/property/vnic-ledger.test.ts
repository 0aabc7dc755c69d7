import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { assembleVnicLedger, type StoredVnicEntry, type VnicLedgerLine } from '../../src/model/vnic-ledger.ts';
import { createVnicLedger, type SavedVnic } from '../../src/probe/vnic-ledger.ts';

/*
 * A model of a vNIC and of how late its packets come to rows: what is lost or doubled on the way there has to be the remainder, and nothing else.
 */
const ZONE = 0x8001;
const DELAY_MS = 10_000;
const HOUR_US = 3_600_000_000;
/** A quarter of an hour before a full hour. */
const START_US = 500_000 * HOUR_US - HOUR_US / 4;
const VNIC = { zone: ZONE, endpoint: 'iface-a', vm: 'a' } as const;

type Step =
  | { readonly do: 'send'; readonly count: number; readonly lagMs: number; readonly fate: 'kept' | 'lost' | 'doubled' }
  | { readonly do: 'arp' }
  | { readonly do: 'pass'; readonly ms: number }
  | { readonly do: 'look' | 'restart' | 'plug' | 'switch' };

const step = (fates: readonly ('kept' | 'lost' | 'doubled')[], restarts: boolean): fc.Arbitrary<Step> =>
  fc.oneof(
    fc.record({
      do: fc.constant('send' as const),
      count: fc.integer({ min: 1, max: 1000 }),
      lagMs: fc.integer({ min: 0, max: DELAY_MS - 1 }),
      fate: fc.constantFrom(...fates),
    }),
    fc.constant<Step>({ do: 'arp' }),
    fc.record({
      do: fc.constant('pass' as const),
      ms: fc.oneof(fc.integer({ min: 1, max: 5000 }), fc.constant(400_000)),
    }),
    fc.constant<Step>({ do: 'look' }),
    ...(restarts ? [fc.constantFrom<Step>({ do: 'restart' }, { do: 'plug' }, { do: 'switch' })] : []),
  );

/** @param hasDevice whether the host numbers the vNIC's device; else a port's age has to tell, as of vhost-user */
function run(steps: readonly Step[], hasDevice = true) {
  let now = 0;
  let epoch = 1;
  let made = -1e9;
  let ifindex = 7;
  let isPlugged = false;
  const port = { packets: 0, octets: 0 };
  const sent = { packets: 0, octets: 0 };
  const wrong = { packets: 0, octets: 0 };
  let rows: { at: number; packets: number; octets: number }[] = [];
  const stored = new Map<string, StoredVnicEntry>();
  const make = () => createVnicLedger({ host: 'h1', epoch, delayMs: DELAY_MS });
  let ledger = make();
  const take = (): void => {
    for (const { lines } of ledger.report(START_US + now * 1000))
      for (const line of lines)
        stored.set(`${line.epoch} ${line.hour} ${line.endpoint} ${line.term}`, { host: 'h1', ...line });
  };
  const look = (): void => {
    ledger.begin();
    ledger.ports(
      [
        {
          ...VNIC,
          ageMs: now - made,
          ...(hasDevice ? { ifindex } : {}),
          out: { ...port },
          in: { packets: 0, octets: 0 },
        },
      ],
      {
        at: now,
        time: START_US + now * 1000,
      },
    );
    take();
  };
  const elapse = (ms: number): void => {
    const until = now + ms;
    for (const { at, packets, octets } of rows.filter((one) => one.at <= until).toSorted((a, b) => a.at - b.at)) {
      now = at;
      ledger.counted(ZONE, 'conntrack', { packets, octets }, NOTHING, NOTHING);
    }
    rows = rows.filter((one) => one.at > until);
    now = until;
  };
  look();
  for (const one of steps) {
    if (one.do === 'pass') elapse(one.ms);
    else if (one.do === 'look') look();
    else if (one.do === 'arp') {
      for (const each of [port, sent]) Object.assign(each, { packets: each.packets + 1, octets: each.octets + 42 });
      ledger.grew({ kind: 'arpSent', zone: ZONE }, 1, 42, true);
    } else if (one.do === 'send') {
      const amount = { packets: one.count, octets: one.count * 100 };
      for (const each of [port, sent])
        Object.assign(each, { packets: each.packets + amount.packets, octets: each.octets + amount.octets });
      const times = { kept: 1, lost: 0, doubled: 2 }[one.fate];
      wrong.packets += amount.packets * (1 - times);
      wrong.octets += amount.octets * (1 - times);
      for (let i = 0; i < times; i++) rows.push({ at: now + one.lagMs, ...amount });
    } else if (one.do === 'plug') {
      // By age, once: of two within two looks nobody could tell.
      if (isPlugged && !hasDevice) continue;
      // The port is made anew between two looks, after the counters of the old one were read.
      look();
      Object.assign(port, { packets: 0, octets: 0 });
      made = now;
      ifindex++;
      isPlugged = true;
    } else if (one.do === 'switch') {
      if (!hasDevice) continue;
      // ovs-vswitchd begins anew: the age of its ports does, the device counts on.
      made = now;
    } else {
      look();
      const saved: readonly SavedVnic[] = structuredClone(ledger.save());
      epoch++;
      ledger = make();
      ledger.resume(saved);
    }
  }
  look();
  elapse(DELAY_MS);
  look();
  elapse(DELAY_MS);
  look();
  const lines = assembleVnicLedger([...stored.values()]).filter(({ direction }) => direction === 'out');
  const sum = (of: (line: VnicLedgerLine) => { packets: number; octets: number }) =>
    lines.reduce(
      (all, line) => ({ packets: all.packets + of(line).packets, octets: all.octets + of(line).octets }),
      NOTHING,
    );
  return { sent, wrong, lines, sum };
}

const NOTHING = { packets: 0, octets: 0 };

describe('the ledger of a vNIC', () => {
  it('closes when traffic rests, over hours, new ports, and restarts of the agent and of the switch', () => {
    fc.assert(
      fc.property(fc.array(step(['kept'], true), { maxLength: 40 }), fc.boolean(), (steps, hasDevice) => {
        const { lines, sum } = run(steps, hasDevice);
        expect(sum(({ remainder }) => remainder)).toEqual(NOTHING);
        expect(sum(({ in_flight }) => in_flight)).toEqual(NOTHING);
        // Not only in sum: nothing is ever called missing that only comes late.
        for (const { remainder } of lines) expect(remainder).toEqual(NOTHING);
      }),
      { numRuns: 200 },
    );
  });

  it('has what was lost or doubled as its remainder, and everything that the port counted', () => {
    fc.assert(
      fc.property(fc.array(step(['kept', 'lost', 'doubled'], false), { maxLength: 40 }), (steps) => {
        const { sent, wrong, sum } = run(steps);
        expect(sum(({ port }) => port)).toEqual(sent);
        expect(sum(({ remainder }) => remainder)).toEqual(wrong);
        expect(sum(({ in_flight }) => in_flight)).toEqual(NOTHING);
      }),
      { numRuns: 200 },
    );
  });
});

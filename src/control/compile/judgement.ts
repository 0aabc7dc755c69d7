import { CT_MARK, DROP_REASONS, REGISTERS, STAGES } from '../../model/datapath.ts';
import type { Flow, Match } from '../../wire/openflow/flow.ts';
import { TABLES } from '../pipeline.ts';
import {
  CT,
  copy,
  drop,
  ETHERTYPE,
  FRAGMENT,
  flow,
  MARKED,
  resubmit,
  sample,
  sampleDropped,
  set,
  total,
} from './build.ts';
import type { CompileInput, LocalEndpoint, Topology } from './topology.ts';

const SIDES = {
  egress: {
    track: 'egressTrack',
    state: 'egressState',
    endpoint: REGISTERS.source,
    noted: REGISTERS.egressRule,
    original: 'egressRules',
    reply: 'ingressRules',
    next: 'routing',
    allow: 'egressAllow',
    drop: 'egressDrop',
    mark: CT_MARK.ours | CT_MARK.client,
  },
  ingress: {
    track: 'ingressTrack',
    state: 'ingressState',
    endpoint: REGISTERS.destination,
    noted: REGISTERS.ingressRule,
    original: 'ingressRules',
    reply: 'egressRules',
    next: 'output',
    allow: 'ingressAllow',
    drop: 'ingressDrop',
    mark: CT_MARK.ours,
  },
} as const;
type SideName = keyof typeof SIDES;

/**
 * Conntrack, the two rule tables' surroundings, record and enforce.
 *
 * Each packet of a connection is judged, not only the first, and always by the connection's *original* tuple (ct_nw_src and so on): a reply is
 * judged by the rule that judged its request. So a rule that is gone ends its connections at once, with nothing to flush, and every packet
 * can name its rule. The switch's megaflow cache makes it as cheap as a look at the state alone.
 */
export function judgement({ locals }: Topology, countedBy: CompileInput['countedBy']): Flow[] {
  return [
    ...(['egress', 'ingress'] as const).flatMap((side) => tracking(side, locals)),
    flow('egressRules', 0, 0, {}, [resubmit('record')]),
    flow('ingressRules', 0, 0, {}, [resubmit('record')]),
    ...(['egress', 'ingress'] as const).flatMap((side) => record(side, locals, countedBy)),
    ...enforce(locals, countedBy),
  ];
}

/**
 * What comes back from conntrack has to be what went in. Userspace conntrack of Open vSwitch up to 3.7 lets fragments that waited too long (15 s), and those beyond
 * the 32 packets of a batch, go on with whatever packets it looks at next, of any vNIC (lib/ipf.c, ipf_send_expired_frags and ipf_send_completed_frags). Their zone,
 * or their state, is not the one that was asked for; the registers are those of the others.
 */
function ownOf(zone: number): Match {
  return { [REGISTERS.judged]: zone, ct_zone: zone };
}

/** Of nobody, as nobody knows whose it was. */
function stray(table: 'egressState' | 'ingressState' | 'committed', priority: number, match: Match): Flow {
  return flow(table, priority, 0, match, [set('source', 0), set('destination', 0), ...drop('FRAGMENT')]);
}

function tracking(side: SideName, locals: readonly LocalEndpoint[]): Flow[] {
  const { track, state, endpoint, original, reply } = SIDES[side];
  const tracked = (bits: number, mask: number): Match => ({
    ct_state: [CT.tracked | bits, CT.tracked | mask],
    eth_type: ETHERTYPE.ipv4,
  });
  const stage = set('stage', STAGES[side]);
  return [
    flow(track, 50, 0, { eth_type: ETHERTYPE.ipv4 }, [
      stage,
      copy(endpoint, REGISTERS.judged),
      // The first judgement's must not pass for the second's where no rule applies.
      set('decision', 0),
      { type: 'ct', zone: { field: endpoint, offset: 0, bits: 16 }, table: TABLES[state].number },
    ]),
    // ARP between endpoints is answered before it comes here; nothing else is carried.
    flow(track, 0, 0, {}, [stage, ...drop('UNSUPPORTED')]),
    ...locals.flatMap(({ zone }) => {
      const own = ownOf(zone);
      const invalid = tracked(CT.invalid, CT.invalid);
      return [
        flow(state, 110, zone, { ...own, ...invalid, ...FRAGMENT.any }, drop('FRAGMENT')),
        flow(state, 100, zone, { ...own, ...invalid }, drop('CT_INVALID')),
        flow(state, 50, zone, { ...own, ...tracked(CT.reply, CT.reply) }, [resubmit(reply)]),
        flow(state, 40, zone, { ...own, ...tracked(0, CT.reply) }, [resubmit(original)]),
      ];
    }),
    stray(state, 10, { eth_type: ETHERTYPE.ipv4, ...FRAGMENT.any }),
    flow(state, 0, 0, {}, drop('CT_INVALID')),
  ];
}

function record(side: SideName, locals: readonly LocalEndpoint[], countedBy: CompileInput['countedBy']): Flow[] {
  const { noted, allow, drop } = SIDES[side];
  const here = { [REGISTERS.stage]: STAGES[side] };
  const note = copy(REGISTERS.decision, noted);
  const { number } = DROP_REASONS.DEFAULT_DENY;
  return [
    flow('record', 100, 0, { ...here, ...MARKED }, [note], 'enforce'),
    // The first fragment is the one that knows which rule it is, and says so.
    flow(
      'record',
      60,
      0,
      { ...here, eth_type: ETHERTYPE.ipv4, ...FRAGMENT.later, [REGISTERS.reason]: 0 },
      [note],
      'enforce',
    ),
    ...locals.flatMap(({ zone }) => {
      const judged = { ...here, [REGISTERS.judged]: zone };
      const denied = total(
        flow('record', 40, zone, { ...judged, [REGISTERS.reason]: number }, sampleDropped(drop, zone, number)),
      );
      if (countedBy === 'conntrack') return [denied];
      const began = { ...judged, ct_state: [CT.new, CT.new] } as const;
      return [denied, flow('record', 20, zone, began, [sample(allow, zone), note], 'enforce')];
    }),
    flow('record', 10, 0, here, [note], 'enforce'),
  ];
}

/**
 * Reports what a rule decides for the vNICs that it judges: some of the packets that it denies, and, where IPFIX counts, each new connection that it allows. Where
 * conntrack counts, its entry says so. A packet that is denied has its end here, on either side: a reply comes to the rule of its request on the other one. What begins a
 * connection is no reply.
 */
export function recordOf(
  { number: rule, action, direction }: { number: number; action: 'allow' | 'deny'; direction: SideName },
  locals: readonly LocalEndpoint[],
  countedBy: CompileInput['countedBy'],
): Flow[] {
  if (action === 'allow' && countedBy === 'conntrack') return [];
  const sides = action === 'allow' ? [direction] : (['egress', 'ingress'] as const);
  return sides.flatMap((side) => {
    const { noted, allow, drop } = SIDES[side];
    return locals.map(({ zone }) => {
      const decided = {
        [REGISTERS.stage]: STAGES[side],
        [REGISTERS.judged]: zone,
        [REGISTERS.decision]: rule,
      };
      if (action === 'deny') return total(flow('record', 50, rule, decided, sampleDropped(drop, zone, rule)));
      const began: Match = { ...decided, ct_state: [CT.new, CT.new] };
      return flow('record', 50, rule, began, [sample(allow, zone, rule), copy(REGISTERS.decision, noted)], 'enforce');
    });
  });
}

function enforce(locals: readonly LocalEndpoint[], countedBy: CompileInput['countedBy']): Flow[] {
  const denied = [DROP_REASONS.POLICY_DENY.number, DROP_REASONS.DEFAULT_DENY.number];
  return [
    ...denied.map((reason) => flow('enforce', 100, reason, { [REGISTERS.reason]: reason }, [resubmit('drop')])),
    ...(['egress', 'ingress'] as const).flatMap((side) => {
      const here = { [REGISTERS.stage]: STAGES[side] };
      const next = resubmit(SIDES[side].next);
      const { ours, client, ruleBits } = CT_MARK;
      // Where IPFIX counts, the datapath is in userspace: whatever comes out of conntrack there is looked at again.
      const isLookedAt = countedBy === 'ipfix';
      return [
        // A traced packet leaves no connection behind.
        flow('enforce', 60, 0, { ...here, ...MARKED }, [next]),
        flow(
          'enforce',
          50,
          0,
          { ...here, eth_type: ETHERTYPE.ipv4, ct_state: [CT.new | CT.tracked, CT.new | CT.tracked] },
          [
            {
              type: 'ct',
              commit: true,
              ...(isLookedAt ? { table: TABLES.committed.number } : {}),
              zone: { field: REGISTERS.judged, offset: 0, bits: 16 },
              actions: [
                {
                  type: 'copy_field',
                  src: { field: REGISTERS.decision, offset: 0, bits: ruleBits },
                  dst: { field: 'ct_mark', offset: 0, bits: ruleBits },
                },
                { type: 'set_field', field: 'ct_mark', value: SIDES[side].mark >>> 0, mask: (ours | client) >>> 0 },
              ],
            },
            ...(isLookedAt ? [] : [next]),
          ],
        ),
        ...(isLookedAt ? committed(side, locals) : []),
        flow('enforce', 40, 0, here, [next]),
      ];
    }),
    flow('enforce', 0, 0, {}, drop('POLICY_DENY')),
    stray('committed', 10, { eth_type: ETHERTYPE.ipv4, ...FRAGMENT.any }),
    flow('committed', 0, 0, {}, drop('CT_INVALID')),
  ];
}

function committed(side: SideName, locals: readonly LocalEndpoint[]): Flow[] {
  return locals.map(({ zone }) => {
    const whole: Match = { ct_state: [CT.tracked, CT.tracked | CT.invalid], eth_type: ETHERTYPE.ipv4 };
    const here = { [REGISTERS.stage]: STAGES[side], ...ownOf(zone), ...whole };
    return flow('committed', 50, zone, here, [resubmit(SIDES[side].next)]);
  });
}

import { DOMAINS, DROP_REASONS, REGISTERS, STAGES } from '../../model/datapath.ts';
import type { Flow, Match } from '../../wire/openflow/flow.ts';
import { TABLES } from '../pipeline.ts';
import { CT, copy, drop, ETHERTYPE, flow, MARKED, resubmit, sample, set } from './build.ts';

/** Bits of ct_label that hold the number of the rule that let the connection begin. */
const LABEL_RULE_BITS = 32;

const SIDES = {
  egress: {
    track: 'egressTrack',
    state: 'egressState',
    endpoint: REGISTERS.source,
    noted: REGISTERS.egressRule,
    original: 'egressRules',
    reply: 'ingressRules',
    next: 'routing',
  },
  ingress: {
    track: 'ingressTrack',
    state: 'ingressState',
    endpoint: REGISTERS.destination,
    noted: REGISTERS.ingressRule,
    original: 'ingressRules',
    reply: 'egressRules',
    next: 'output',
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
export function judgement(): Flow[] {
  return [
    ...(['egress', 'ingress'] as const).flatMap(tracking),
    flow('egressRules', 0, 0, {}, [resubmit('record')]),
    flow('ingressRules', 0, 0, {}, [resubmit('record')]),
    ...(['egress', 'ingress'] as const).flatMap(record),
    ...enforce(),
  ];
}

function tracking(side: SideName): Flow[] {
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
    flow(state, 100, 0, tracked(CT.invalid, CT.invalid), drop('CT_INVALID')),
    flow(state, 50, 0, tracked(CT.reply, CT.reply), [resubmit(reply)]),
    flow(state, 40, 0, tracked(0, CT.reply), [resubmit(original)]),
    flow(state, 0, 0, {}, drop('CT_INVALID')),
  ];
}

function record(side: SideName): Flow[] {
  const { noted } = SIDES[side];
  const here = { [REGISTERS.stage]: STAGES[side] };
  const note = copy(REGISTERS.decision, noted);
  return [
    flow('record', 100, 0, { ...here, ...MARKED }, [note], 'enforce'),
    flow(
      'record',
      40,
      DROP_REASONS.DEFAULT_DENY.number,
      { ...here, [REGISTERS.reason]: DROP_REASONS.DEFAULT_DENY.number },
      [sample(DOMAINS[side], DROP_REASONS.DEFAULT_DENY.number), note],
      'enforce',
    ),
    flow('record', 10, 0, here, [note], 'enforce'),
  ];
}

/** Reports what a rule decides: each new connection that it allows, and each packet that it denies. Either side may come to it. */
export function recordOf(rule: number, action: 'allow' | 'deny'): Flow[] {
  const when: Match = action === 'allow' ? { ct_state: [CT.new, CT.new] } : {};
  return (['egress', 'ingress'] as const).map((side) =>
    flow(
      'record',
      50,
      rule,
      { [REGISTERS.stage]: STAGES[side], [REGISTERS.decision]: rule, ...when },
      [sample(DOMAINS[side], rule), copy(REGISTERS.decision, SIDES[side].noted)],
      'enforce',
    ),
  );
}

function enforce(): Flow[] {
  const denied = [DROP_REASONS.POLICY_DENY.number, DROP_REASONS.DEFAULT_DENY.number];
  return [
    ...denied.map((reason) => flow('enforce', 100, reason, { [REGISTERS.reason]: reason }, [resubmit('drop')])),
    ...(['egress', 'ingress'] as const).flatMap((side) => {
      const here = { [REGISTERS.stage]: STAGES[side] };
      const next = resubmit(SIDES[side].next);
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
              zone: { field: REGISTERS.judged, offset: 0, bits: 16 },
              actions: [
                {
                  type: 'copy_field',
                  src: { field: REGISTERS.decision },
                  dst: { field: 'ct_label', offset: 0, bits: LABEL_RULE_BITS },
                },
              ],
            },
            next,
          ],
        ),
        flow('enforce', 40, 0, here, [next]),
      ];
    }),
    flow('enforce', 0, 0, {}, drop('POLICY_DENY')),
  ];
}

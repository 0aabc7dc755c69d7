import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compile, createCompiler } from '../../src/control/compile/compile.ts';
import type { CompileInput } from '../../src/control/compile/topology.ts';
import { diff, flowKey, flowSet } from '../../src/control/diff.ts';
import { createIntentReader } from '../../src/control/intents/state.ts';
import { explainCookie } from '../../src/control/pipeline.ts';
import { FIRST_RULE, ZONES } from '../../src/model/datapath.ts';
import { resolveEndpoints } from '../../src/model/endpoint.ts';
import type { Flow } from '../../src/wire/openflow/flow.ts';
import { encapOf, locations, NAMES, planFor, portOf, randomPolicies, TUNNEL } from '../support/random-world.ts';

/** One change: other policies, another set of local ports, endpoints elsewhere, a tunnel or none. */
const step = fc.record(
  {
    policies: randomPolicies,
    local: fc.subarray(NAMES),
    placed: fc.subarray([...locations.keys()]),
    tunnel: fc.constantFrom(TUNNEL, undefined),
  },
  { requiredKeys: [] },
);

describe('a compiler with a memory', () => {
  it('says after each of many changes what one without says', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 8 }), (steps) => {
        const reader = createIntentReader();
        const remembering = createCompiler();
        let [local, placed, tunnel] = [NAMES, [...locations.keys()], TUNNEL as number | undefined];
        let endpoints: CompileInput['endpoints'] = [];
        for (const change of [{ policies: [] }, ...steps]) {
          if (change.policies !== undefined) {
            const { messages } = planFor(change.policies, reader.state);
            reader.take(
              messages.map((message, offset) => ({ headers: {}, ...message, partition: 0, offset, timestamp: 0 })),
            );
          }
          local = change.local ?? local;
          tunnel = 'tunnel' in change ? change.tunnel : tunnel;
          const documents = [...reader.state.documents.values()];
          if (endpoints.length === 0 || change.placed !== undefined) {
            placed = change.placed ?? placed;
            endpoints = resolveEndpoints(documents, new Map(placed.map((id) => [id, locations.get(id)!])));
          }
          const ports = local.map(portOf);
          const input: CompileInput = {
            documents,
            endpoints,
            ports,
            tunnel,
            encapAddress: encapOf(1),
            countedBy: 'ipfix',
          };
          const [got, want] = [remembering(input), compile(input)];
          expect(got).toEqual(want);
          // No two flows share an identity, so none hides another.
          expect(new Set(want.map(flowKey)).size).toBe(want.length);
        }
      }),
      { numRuns: 40 },
    );
  });

  it('takes over the flows of what has not changed', () => {
    fc.assert(
      fc.property(randomPolicies, (policies) => {
        const reader = createIntentReader();
        const remembering = createCompiler();
        const inputOf = (endpoints?: CompileInput['endpoints']): CompileInput => {
          const documents = [...reader.state.documents.values()];
          const ports = NAMES.map(portOf);
          return {
            documents,
            endpoints: endpoints ?? resolveEndpoints(documents, locations),
            ports,
            tunnel: TUNNEL,
            encapAddress: encapOf(1),
            countedBy: 'ipfix',
          };
        };
        const apply = (list: typeof policies): void => {
          const { messages } = planFor(list, reader.state);
          reader.take(
            messages.map((message, offset) => ({ headers: {}, ...message, partition: 0, offset, timestamp: 0 })),
          );
        };
        apply(policies);
        const before = inputOf();
        const first = new Set(remembering(before));
        const fewer = policies
          .filter(({ kind }) => kind !== 'Policy')
          .concat(policies.filter(({ kind }) => kind === 'Policy').slice(1));
        apply(fewer);
        const second = remembering(inputOf(before.endpoints));
        const { add } = diff(flowSet(second), flowSet(first));
        // What is new as an object is new in content too, isolation apart, which policies share.
        const isOfRule = ({ cookie }: Flow): boolean => {
          const { subject = 0 } = explainCookie(cookie) ?? {};
          return subject >= FIRST_RULE && subject < ZONES.first;
        };
        const fresh = second.filter((flow) => !first.has(flow) && isOfRule(flow));
        for (const flow of fresh) expect(add).toContain(flow);
      }),
      { numRuns: 50 },
    );
  });
});

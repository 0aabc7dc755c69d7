import type { Flow } from '../../wire/openflow/flow.ts';
import { admission } from './admission.ts';
import { forwarding } from './forwarding.ts';
import { judgement } from './judgement.ts';
import { rules } from './rules.ts';
import { type CompileInput, topologyOf } from './topology.ts';

/** All flows of one host. Pure: the same input gives the same flows, in the same order. */
export function compile(input: CompileInput): readonly Flow[] {
  const topology = topologyOf(input);
  const { flows, compiled } = rules(input.documents, topology);
  const encapAddress = typeof input.encapAddress === 'number' ? input.encapAddress : 0;
  return [
    ...admission(topology, input.tunnel),
    ...judgement(compiled),
    ...flows,
    ...forwarding(topology, input.tunnel, encapAddress),
  ];
}

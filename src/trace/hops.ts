import { DROP_REASONS, type DropReason } from '../model/datapath.ts';
import type { Observation, RuleReference, TraceHop, TraceRequest } from '../model/trace.ts';

/** What the server knows of a rule by its number; undefined where it was deleted, or never known here. */
export type RuleLookup = (number: number) => RuleReference | undefined;

type Component = TraceHop['component'];
type Registers = NonNullable<Observation['registers']>;

/** The part of the pipeline in which each reason arises; `policy` is the sender's or the receiver's, see `policySide`. */
const STAGE_OF_REASON = {
  PORT_SECURITY: 'PortSecurity',
  UNBOUND: 'PortSecurity',
  MULTICAST: 'PortSecurity',
  UNSUPPORTED: 'PortSecurity',
  ARP_UNRESOLVED: 'Resolution',
  NO_ROUTE: 'Routing',
  TTL_EXCEEDED: 'Routing',
  UNKNOWN_DESTINATION: 'Forwarding',
  WRONG_LOCATION: 'Forwarding',
  WRONG_VNI: 'Tunnel',
  POLICY_DENY: 'policy',
  DEFAULT_DENY: 'policy',
  CT_INVALID: 'policy',
  FRAGMENT: 'policy',
} as const satisfies Record<DropReason, Component | 'policy'>;

const REASON_BY_NUMBER = new Map(
  (Object.keys(DROP_REASONS) as DropReason[]).map((reason) => [DROP_REASONS[reason].number as number, reason]),
);

/** The built-in reason behind a number of the reason register. */
export function dropReason(number: number): DropReason | undefined {
  return REASON_BY_NUMBER.get(number);
}

/** Whose policy an observation's end belongs to: a packet that has its destination port, or came out of a tunnel, is past the sender's. */
export function policySide(observation: Observation): 'egress' | 'ingress' {
  const registers = observation.registers;
  if (observation.tunnel !== null) return 'ingress';
  return registers !== null && (registers.destination !== 0 || registers.ingressRule !== 0) ? 'ingress' : 'egress';
}

/** Number of the rule that decided last, 0 where none applied. */
export function decidingRule(observation: Observation): number {
  const registers = observation.registers;
  if (registers === null) return 0;
  return policySide(observation) === 'ingress' ? registers.ingressRule : registers.egressRule;
}

/** A rule in words, as `rule 1003 "web" of policy front (tier application)`. */
export function nameRule(number: number, rules: RuleLookup): string {
  const rule = rules(number);
  if (rule === undefined) return `rule ${number}, which is not known here (deleted since?)`;
  return `rule ${number} "${rule.name}" of policy ${rule.policy} (tier ${rule.tier})`;
}

interface Step {
  readonly component: Component;
  readonly action: TraceHop['action'];
  readonly detail: string;
}

/** Reads what a tail of the pipeline reported back into the steps that led there. */
export function hopsOf(request: TraceRequest, observation: Observation, rules: RuleLookup): TraceHop[] {
  const { host, point, packet, error } = observation;
  if (point === 'injected') {
    const detail = `at the port of ${request.source.name}${packet === null ? '' : `: ${packet}`}`;
    return [{ host, component: 'Injection', action: 'Injected', detail }];
  }
  if (point === 'failed')
    return [{ host, component: 'Injection', action: 'Failed', detail: error ?? 'no reason given' }];

  const end = endOf(request, observation, rules);
  const all =
    observation.tunnel === null ? stepsFromGuest(request, observation, rules) : stepsFromTunnel(observation, rules);
  const cut = end === undefined ? -1 : all.findIndex((step) => step.component === end.component);
  const passed = cut < 0 && end !== undefined ? all.slice(0, 1) : cut < 0 ? all : all.slice(0, cut);
  return [...passed, ...(end === undefined ? [] : [end])].map((step) => ({ host, ...step }));
}

/** The step at which the packet stopped, if it did not run the whole way. */
function endOf(request: TraceRequest, observation: Observation, rules: RuleLookup): Step | undefined {
  if (observation.point === 'answered') {
    return request.packet.ethernetDestination === null
      ? { component: 'Resolution', action: 'Answered', detail: 'the switch answers for the owner of the address' }
      : { component: 'Routing', action: 'Answered', detail: 'the router answers' };
  }
  if (observation.point !== 'dropped') return undefined;
  const number = observation.registers?.reason ?? 0;
  const reason = dropReason(number);
  if (reason === undefined)
    return { component: 'Output', action: 'Dropped', detail: `reason ${number}, not known here` };
  const stage = STAGE_OF_REASON[reason];
  const rule = decidingRule(observation);
  return {
    component: stage !== 'policy' ? stage : policySide(observation) === 'ingress' ? 'IngressPolicy' : 'EgressPolicy',
    action: 'Dropped',
    detail: reason === 'POLICY_DENY' && rule !== 0 ? nameRule(rule, rules) : `${reason}: ${DROP_REASONS[reason].says}`,
  };
}

/** The whole way of a packet that came from a local vNIC, up to the tail that reported it. */
function stepsFromGuest(request: TraceRequest, observation: Observation, rules: RuleLookup): Step[] {
  const registers = observation.registers ?? NO_REGISTERS;
  const { network, sourceNetwork } = registers;
  const routed = sourceNetwork !== 0 && network !== sourceNetwork;
  const ended = endOf(request, observation, rules)?.component;
  const sender = `${request.source.mac ?? 'no MAC'} ${request.source.address}`;
  const steps: Step[] = [{ component: 'PortSecurity', action: 'Allowed', detail: sender }];
  if (ended === 'Resolution') steps.push({ component: 'Resolution', action: 'Forwarded', detail: '' });
  steps.push({ component: 'EgressPolicy', action: 'Allowed', detail: allowed(registers.egressRule, rules) });
  if (routed || ended === 'Routing') {
    steps.push({ component: 'Routing', action: 'Routed', detail: `VNI ${sourceNetwork} to VNI ${network}` });
  }
  if (observation.point !== 'tunnelled') {
    return [
      ...steps,
      { component: 'Forwarding', action: 'Forwarded', detail: `to ${portName(observation)} on this host` },
      ...stepsToGuest(observation, registers, rules),
    ];
  }
  const to = registers.tunnelDestination ?? 'an unknown address';
  return [
    ...steps,
    { component: 'Forwarding', action: 'Forwarded', detail: `to the host at ${to}` },
    { component: 'Tunnel', action: 'Sent', detail: `to ${to}, VNI ${network}` },
  ];
}

function stepsFromTunnel(observation: Observation, rules: RuleLookup): Step[] {
  const tunnel = observation.tunnel;
  const detail = tunnel === null ? '' : `from ${tunnel.source} at ${tunnel.destination}, VNI ${tunnel.vni}`;
  return [
    { component: 'Tunnel', action: 'Received', detail },
    ...stepsToGuest(observation, observation.registers ?? NO_REGISTERS, rules),
  ];
}

function stepsToGuest(observation: Observation, registers: Registers, rules: RuleLookup): Step[] {
  return [
    { component: 'IngressPolicy', action: 'Allowed', detail: allowed(registers.ingressRule, rules) },
    { component: 'Output', action: 'Delivered', detail: `at the port of ${portName(observation)}` },
  ];
}

function portName(observation: Observation): string {
  return observation.endpoint?.name ?? `OpenFlow port ${observation.registers?.destination ?? 'unknown'}`;
}

function allowed(rule: number, rules: RuleLookup): string {
  return rule === 0 ? 'no policy applies' : nameRule(rule, rules);
}

const NO_REGISTERS: Registers = {
  source: 0,
  destination: 0,
  network: 0,
  sourceNetwork: 0,
  egressRule: 0,
  ingressRule: 0,
  reason: 0,
  tunnelDestination: null,
};

import { DROP_REASONS } from '../model/datapath.ts';
import type { FailureCause } from '../model/failure-causes.ts';
import type { Observation, TraceHop, TraceRequest, Verdict } from '../model/trace.ts';
import { type AdviceSubject, adviceFor } from './advice.ts';
import type { Assembly } from './assemble.ts';
import { decidingRule, dropReason, hopsOf, nameRule, policySide, type RuleLookup } from './hops.ts';

/** A host as its agent's heartbeat tells of it. */
export interface KnownHost {
  readonly host: string;
  /** Underlay address that tunnels end at. */
  readonly encapAddress: string;
  /** Milliseconds since its agent was last heard of, by the server's clock. */
  readonly ageMs: number;
}

/** What a verdict draws on beside the observations. What the server knows at that moment. */
export interface ExplainContext {
  readonly rules: RuleLookup;
  /** Every host that has ever spoken. */
  readonly hosts: readonly KnownHost[];
  /** An agent that has been silent for longer counts as gone. */
  readonly staleAfterMs: number;
  /** Server's clock, microseconds since the epoch. */
  readonly now: number;
}

type Finding = Pick<Verdict, 'result' | 'host' | 'table' | 'cause' | 'rule' | 'sentence'> & {
  readonly evidence: Verdict['evidence'];
  readonly about: Omit<AdviceSubject, 'request'>;
  readonly hops?: readonly TraceHop[];
};

/**
 * Says what became of a packet, why, by what evidence, and what to check next. Pure. An unfinished assembly is explained as one whose time is
 * up: what was seen last, and which of the causes that leave nothing behind fit. Where two fit, the verdict is `inconclusive` and says so.
 */
export function explain(request: TraceRequest, assembly: Assembly, context: ExplainContext): Verdict {
  const finding = find(request, assembly, context);
  return {
    id: request.id,
    number: request.number,
    source: request.source,
    destination: request.destination,
    packet: request.packet,
    result: finding.result,
    host: finding.host,
    table: finding.table,
    cause: finding.cause,
    rule: finding.rule,
    sentence: finding.sentence,
    evidence: [...assembly.path.map(evidenceOf), ...finding.evidence],
    next: adviceFor(finding.cause, { request, ...finding.about }),
    hops: [...assembly.path.flatMap((o) => hopsOf(request, o, context.rules)), ...(finding.hops ?? [])],
    requestedAt: request.requestedAt,
    finishedAt: context.now,
    durationMicros: Math.max(0, context.now - request.requestedAt),
  };
}

function find(request: TraceRequest, assembly: Assembly, context: ExplainContext): Finding {
  if (assembly.end !== undefined) {
    const finding = ended(request, assembly.end, context);
    return assembly.state === 'complete' ? finding : { ...finding, evidence: [...finding.evidence, gap(request)] };
  }
  const last = assembly.path.at(-1);
  if (last === undefined) return neverInjected(request, context);
  return last.point === 'tunnelled' ? lostBetweenHosts(request, last, context) : noTail(request, last);
}

function ended(request: TraceRequest, end: Observation, context: ExplainContext): Finding {
  const base = { host: end.host, table: end.table, cause: null, rule: null, evidence: [], about: { host: end.host } };
  const what = describe(request);
  switch (end.point) {
    case 'delivered': {
      const to = end.endpoint;
      if (to !== null && request.destination.ifaceId !== null && to.ifaceId !== request.destination.ifaceId) {
        const sentence = `${what} reached ${to.name} on ${end.host}, which is not ${request.destination.name}.`;
        return { ...base, result: 'delivered', sentence };
      }
      const sentence = `${what} reached the port of ${to?.name ?? request.destination.name} on ${end.host}; what the guest makes of it was not tried.`;
      return { ...base, result: 'delivered', sentence };
    }
    case 'answered':
      return { ...base, result: 'replied', sentence: `${what} was answered by the network itself on ${end.host}.` };
    case 'failed': {
      const why = end.error ?? 'the host gave no reason';
      const sentence = `${what} was not sent: ${end.host} says ${why}`;
      return { ...base, result: 'inconclusive', cause: end.reason ?? 'INJECTION_FAILED', sentence: stop(sentence) };
    }
    default:
      return dropped(request, end, context);
  }
}

function dropped(request: TraceRequest, end: Observation, context: ExplainContext): Finding {
  const number = end.registers?.reason ?? 0;
  const cause = dropReason(number) ?? null;
  const ruleNumber = decidingRule(end);
  const isRule = cause === 'POLICY_DENY' && ruleNumber !== 0;
  const because = isRule
    ? `${nameRule(ruleNumber, context.rules)} denies it on ${policySide(end)}`
    : cause === null
      ? `of reason ${number}, which this version does not know`
      : DROP_REASONS[cause].says;
  return {
    result: 'dropped',
    host: end.host,
    table: end.table,
    cause,
    rule: isRule ? (context.rules(ruleNumber) ?? null) : null,
    sentence: `${describe(request)} was dropped on ${end.host} because ${because}.`,
    evidence: [],
    about: { host: end.host },
  };
}

function neverInjected(request: TraceRequest, context: ExplainContext): Finding {
  const host = request.source.host ?? 'unknown';
  const silence = silent(host, context);
  const facts = [{ source: `agent on ${host}`, fact: 'has not confirmed that it sent the packet' }];
  return {
    result: 'inconclusive',
    host,
    table: null,
    cause: silence === undefined ? 'NOT_INJECTED' : 'AGENT_DOWN',
    rule: null,
    sentence: `Nothing is known of ${describe(request, 'the')}: ${host} did not confirm within ${request.timeoutMs} ms that it sent it${silence === undefined ? ', though its agent is alive' : `, and ${silence}`}.`,
    evidence: silence === undefined ? facts : [...facts, { source: 'host status', fact: silence }],
    about: { host },
    hops: [{ host, component: 'Injection', action: 'Missing', detail: `not confirmed within ${request.timeoutMs} ms` }],
  };
}

function noTail(request: TraceRequest, last: Observation): Finding {
  return {
    result: 'inconclusive',
    host: last.host,
    table: null,
    cause: 'MISSING_FLOW',
    rule: null,
    sentence: `${describe(request)} entered the pipeline on ${last.host}, and no tail of it reported the packet within ${request.timeoutMs} ms: either a flow is missing, or the report was lost on its way from the switch.`,
    evidence: [
      {
        source: `switch on ${last.host}`,
        fact: 'took the packet; neither delivered, tunnelled, dropped nor answered was reported',
      },
    ],
    about: { host: last.host },
    hops: [{ host: last.host, component: 'Output', action: 'Missing', detail: 'no tail of the pipeline reported it' }],
  };
}

function lostBetweenHosts(request: TraceRequest, last: Observation, context: ExplainContext): Finding {
  const from = last.host;
  const address = last.registers?.tunnelDestination ?? null;
  const at = address ?? 'an unknown address';
  const fromAddress =
    context.hosts.find((one) => one.host === from)?.encapAddress ?? request.source.encapAddress ?? 'unknown';
  const peer = context.hosts.find((one) => one.encapAddress === address)?.host;
  const expected = request.destination;
  const tunnel = `from ${fromAddress} to ${at}, VNI ${last.registers?.network ?? 'unknown'}`;
  const silence = peer === undefined ? undefined : silent(peer, context);
  const misplaced = expected.encapAddress !== null && address !== null && address !== expected.encapAddress;

  let result: Verdict['result'] = 'lost';
  let cause: FailureCause = 'UNDERLAY_LOSS';
  let rest = `${peer ?? 'no known host'} at ${at} did not see it within ${request.timeoutMs} ms`;
  if (misplaced) {
    cause = 'WRONG_LOCATION';
    rest = `that is ${peer ?? 'no known host'}, while ${expected.name} runs on ${expected.host} at ${expected.encapAddress}`;
  } else if (silence !== undefined) {
    result = 'inconclusive';
    cause = 'AGENT_DOWN';
    rest = `whether it arrived is not known, because ${silence}`;
  }
  const where = `between ${from} (${fromAddress}) and ${peer ?? 'no known host'} (${at})`;
  const head = result === 'lost' ? `was lost ${where}` : `was last seen on ${from}`;
  return {
    result,
    host: from,
    table: last.table,
    cause,
    rule: null,
    sentence: `${describe(request)} ${head}: it went into the tunnel ${tunnel}, and ${rest}.`,
    evidence: [
      {
        source: `agent on ${peer ?? at}`,
        fact: `reported nothing of trace ${request.number} within ${request.timeoutMs} ms`,
      },
      ...(silence === undefined ? [] : [{ source: 'host status', fact: silence }]),
      ...(misplaced
        ? [{ source: 'endpoints', fact: `${expected.name} is on ${expected.host} at ${expected.encapAddress}` }]
        : []),
    ],
    about: { host: from, peer, peerAddress: address ?? undefined },
    hops: [
      {
        host: peer ?? at,
        component: 'Tunnel',
        action: 'Missing',
        detail: `nothing seen of what ${from} (${fromAddress}) sent`,
      },
    ],
  };
}

/** Says that a host's agent is gone, or undefined while it is alive. */
function silent(host: string, context: ExplainContext): string | undefined {
  const age = context.hosts.find((one) => one.host === host)?.ageMs;
  if (age === undefined) return `no agent of ${host} has ever reported`;
  if (age <= context.staleAfterMs) return undefined;
  return `the agent of ${host} was last heard of ${Math.round(age / 1000)} s ago`;
}

function gap(request: TraceRequest): Verdict['evidence'][number] {
  return {
    source: 'assembly',
    fact: `the end is known, but a host before it did not report within ${request.timeoutMs} ms`,
  };
}

/** The packet in words: `A TCP SYN from web-1 (10.0.0.1) to db-1 (10.0.0.2) port 5432`. */
function describe(request: Pick<TraceRequest, 'source' | 'destination' | 'packet'>, article = 'A'): string {
  const { source, destination, packet } = request;
  const kinds = { tcp: 'TCP SYN', udp: 'UDP packet', icmp: 'ping' } as const;
  const kind = packet.ethernetDestination === null ? 'request for the MAC address' : kinds[packet.protocol];
  const port =
    packet.protocol === 'icmp' || packet.ethernetDestination === null ? '' : ` port ${packet.destinationPort}`;
  const name = (end: TraceRequest['source']) =>
    end.name === end.address ? end.address : `${end.name} (${end.address})`;
  return `${article} ${kind} from ${name(source)} to ${name(destination)}${port}`;
}

function evidenceOf(observation: Observation): Verdict['evidence'][number] {
  const { host, point, table, registers, cookie, tunnel } = observation;
  const source = point === 'injected' || point === 'failed' ? `agent on ${host}` : `switch on ${host}`;
  const facts: string[] = [point === 'injected' ? 'confirmed by a barrier that it sent the packet' : point];
  if (table !== null) facts.push(`table ${table.number}${table.name === null ? '' : ` (${table.name})`}`);
  if (cookie !== null) facts.push(`cookie ${cookie}`);
  if (registers !== null) {
    if (point === 'dropped') facts.push(`reason ${registers.reason}`);
    if (registers.egressRule !== 0) facts.push(`egress rule ${registers.egressRule}`);
    if (registers.ingressRule !== 0) facts.push(`ingress rule ${registers.ingressRule}`);
    if (point === 'tunnelled') facts.push(`to ${registers.tunnelDestination ?? 'an unknown address'}`);
  }
  if (tunnel !== null) facts.push(`out of the tunnel ${tunnel.source} to ${tunnel.destination}, VNI ${tunnel.vni}`);
  if (point === 'failed' && observation.error !== null) facts.push(observation.error);
  return { source, fact: facts.join(', ') };
}

function stop(sentence: string): string {
  return sentence.endsWith('.') ? sentence : `${sentence}.`;
}

import { describe, expect, it } from 'vitest';
import { DROP_REASONS, type DropReason } from '../../src/model/datapath.ts';
import { FAILURE_CAUSES } from '../../src/model/failure-causes.ts';
import type { Observation } from '../../src/model/trace.ts';
import { assemble } from '../../src/trace/assemble.ts';
import { explain } from '../../src/trace/explain.ts';
import {
  answered,
  context,
  DB,
  delivered,
  droppedAtDestination,
  droppedAtSource,
  failed,
  injected,
  RULE,
  request,
  tunnelled,
} from '../support/trace-samples.ts';

function verdict(observations: Observation[], ages: Parameters<typeof context>[0] = {}, asked = request()) {
  return explain(asked, assemble(asked, observations), context(ages));
}
const steps = (of: ReturnType<typeof verdict>) => of.hops.map((h) => `${h.host} ${h.component} ${h.action}`);

describe('explain', () => {
  it('names endpoint, host and every hop of a delivered packet', () => {
    const found = verdict([injected(), tunnelled(), delivered()]);
    expect(found).toMatchObject({ result: 'delivered', host: 'h2', cause: null, rule: null, next: [] });
    expect(found.sentence).toContain('db-1 on h2');
    expect(found.durationMicros).toBe(3_200);
    expect(steps(found)).toEqual([
      'h1 Injection Injected',
      'h1 PortSecurity Allowed',
      'h1 EgressPolicy Allowed',
      'h1 Forwarding Forwarded',
      'h1 Tunnel Sent',
      'h2 Tunnel Received',
      'h2 IngressPolicy Allowed',
      'h2 Output Delivered',
    ]);
  });

  it('names the rule, its policy and its tier where one denies', () => {
    const found = verdict([injected(), tunnelled(), droppedAtDestination('POLICY_DENY', { ingressRule: 1003 })]);
    expect(found).toMatchObject({ result: 'dropped', host: 'h2', cause: 'POLICY_DENY', rule: RULE });
    expect(found.sentence).toMatch(/no-database.*front.*application.*ingress/);
    expect(found.hops.at(-1)).toMatchObject({ component: 'IngressPolicy', action: 'Dropped' });
    expect(found.evidence.map((e) => e.fact).join()).toContain('ingress rule 1003');
  });

  it('names a rule by its number where the server no longer knows it', () => {
    const found = verdict([injected(), droppedAtSource('POLICY_DENY', { egressRule: 1777 })]);
    expect(found.rule).toBeNull();
    expect(found.sentence).toContain('rule 1777');
    expect(found.hops.at(-1)).toMatchObject({ host: 'h1', component: 'EgressPolicy', action: 'Dropped' });
  });

  it('keeps the egress rule that allowed apart from the ingress rule that denied', () => {
    const local = droppedAtSource('POLICY_DENY', { egressRule: 1001, ingressRule: 1003, destination: 4 });
    const found = verdict([injected(), local]);
    expect(found.rule?.number).toBe(1003);
    expect(steps(found)).toEqual([
      'h1 Injection Injected',
      'h1 PortSecurity Allowed',
      'h1 EgressPolicy Allowed',
      'h1 Forwarding Forwarded',
      'h1 IngressPolicy Dropped',
    ]);
  });

  it.each(Object.keys(DROP_REASONS) as DropReason[])('has words and advice for the drop reason %s', (reason) => {
    for (const end of [droppedAtSource(reason), droppedAtDestination(reason)]) {
      const found = verdict([injected(), tunnelled(), end].filter((o) => end.host === 'h2' || o.point !== 'tunnelled'));
      expect(found).toMatchObject({ result: 'dropped', cause: reason, host: end.host });
      expect(found.sentence).toContain(FAILURE_CAUSES[reason]);
      expect(found.next.length).toBeGreaterThan(0);
      expect(found.next.join()).not.toMatch(/[{}]/);
      expect(found.hops.at(-1)?.action).toBe('Dropped');
      expect(found.hops.filter((h) => h.action === 'Dropped')).toHaveLength(1);
    }
  });

  it('does not hide a drop reason that it does not know', () => {
    const end = { ...droppedAtSource('UNBOUND'), reason: null };
    end.registers = { ...end.registers!, reason: 777 };
    expect(verdict([injected(), end]).sentence).toContain('777');
  });

  it('shows the routing between networks', () => {
    const found = verdict([injected(), tunnelled({}, { network: 200, sourceNetwork: 100 }), delivered()]);
    expect(steps(found)).toContain('h1 Routing Routed');
  });

  it('says of an answered packet who answered', () => {
    expect(verdict([injected(), answered()])).toMatchObject({ result: 'replied', host: 'h1', cause: null });
    const asked = request({ packet: { ...request().packet, ethernetDestination: null } });
    expect(steps(verdict([injected(), answered()], {}, asked)).at(-1)).toBe('h1 Resolution Answered');
  });

  it('says that the packet reached somebody else', () => {
    const wrong = delivered({ endpoint: { ifaceId: 'iface-x', name: 'x' } });
    expect(verdict([injected(), tunnelled(), wrong]).sentence).toMatch(/reached x .*not db-1/);
  });

  describe('when time is up', () => {
    it('names both hosts, the tunnel and what to look at, where the far side saw nothing', () => {
      const found = verdict([injected(), tunnelled()]);
      expect(found).toMatchObject({ result: 'lost', host: 'h1', cause: 'UNDERLAY_LOSS' });
      for (const word of ['h1', 'h2', '192.0.2.1', '192.0.2.2', 'VNI 100']) expect(found.sentence).toContain(word);
      const next = found.next.join('\n');
      for (const word of ['ovs/route/lookup 192.0.2.2', 'tnl/neigh/show', 'link state', '6081']) {
        expect(next).toContain(word);
      }
      expect(steps(found).at(-1)).toBe('h2 Tunnel Missing');
    });

    it("does not call a packet lost while the far side's agent is gone", () => {
      const found = verdict([injected(), tunnelled()], { h2: 42_000 });
      expect(found).toMatchObject({ result: 'inconclusive', cause: 'AGENT_DOWN' });
      expect(found.sentence).toMatch(/h2 was last heard of 42 s ago/);
    });

    it('sees that the packet went to a host where the destination is not', () => {
      const found = verdict([injected(), tunnelled({}, { tunnelDestination: '192.0.2.9' })]);
      expect(found).toMatchObject({ result: 'lost', cause: 'WRONG_LOCATION' });
      for (const word of ['192.0.2.9', '192.0.2.2', 'db-1', 'h2']) expect(found.sentence).toContain(word);
    });

    it('says that the source host never confirmed', () => {
      const found = verdict([]);
      expect(found).toMatchObject({ result: 'inconclusive', cause: 'NOT_INJECTED', host: 'h1' });
      expect(found.sentence).toMatch(/h1 did not confirm within 1000 ms.*alive/);
      const gone = verdict([], { h1: null });
      expect(gone).toMatchObject({ cause: 'AGENT_DOWN' });
      expect(gone.sentence).toContain('no agent of h1 has ever reported');
    });

    it('does not guess between a missing flow and a lost report', () => {
      const found = verdict([injected()]);
      expect(found).toMatchObject({ result: 'inconclusive', cause: 'MISSING_FLOW', host: 'h1' });
      expect(found.sentence).toMatch(/flow is missing.*report was lost/);
    });

    it('keeps a known end, and says that a host before it was silent', () => {
      const found = verdict([tunnelled(), delivered()]);
      expect(found.result).toBe('delivered');
      expect(found.evidence.at(-1)?.fact).toContain('did not report');
    });
  });

  it("passes the host's own words on where it could not send", () => {
    const found = verdict([failed('VIF_DOWN', 'no port of this bridge carries iface-web-1')]);
    expect(found).toMatchObject({ result: 'inconclusive', cause: 'VIF_DOWN' });
    expect(found.sentence).toContain('no port of this bridge carries iface-web-1');
    expect(found.next[0]).toContain('web-1');
  });

  it('names a bare address once', () => {
    const bare = {
      ...DB,
      ifaceId: null,
      name: '198.51.100.7',
      address: '198.51.100.7',
      host: null,
      encapAddress: null,
    };
    const found = verdict([injected(), droppedAtSource('NO_ROUTE')], {}, request({ destination: bare }));
    expect(found.sentence).not.toContain('(198.51.100.7)');
  });
});

import { DROP_REASONS, FIRST_RULE } from '../../model/datapath.ts';
import type { Endpoint } from '../../model/endpoint.ts';
import type { FlowRow } from '../../model/flow.ts';
import type { Directory } from '../identity/directory.ts';
import { NO_ADDRESS } from './blank-row.ts';

/** What the local controller knows of a rule's number; numbers are never given twice, so it also knows rules that are gone. */
export interface RuleName {
  readonly policy: string;
  readonly rule: string;
  readonly action: 'allow' | 'deny';
}

export interface RowNamesDeps {
  readonly directory: () => Directory;
  readonly rule: (number: number) => RuleName | undefined;
}

/** No reason has this number: it stands for more of them than have rows of their own. */
export const SEVERAL = 0;

const REASON_NAMES = new Map<number, string>([
  [SEVERAL, 'SEVERAL'],
  ...Object.entries(DROP_REASONS).map(([name, reason]) => [reason.number, name] as const),
]);

/** Fills in what a row says beside counts and addresses: who both ends are, and what was decided. For all that make rows alike. */
export function createRowNames(encapAddress: number, deps: RowNamesDeps) {
  const paths = new WeakMap<RuleName, string>();

  /** One string a rule: the block writer then finds it without hashing its characters. */
  function pathOf(rule: RuleName): string {
    let path = paths.get(rule);
    if (path === undefined) {
      path = `${rule.policy}/${rule.rule}`;
      paths.set(rule, path);
    }
    return path;
  }

  function nameRule(row: FlowRow, number: number): void {
    const rule = number >= FIRST_RULE ? deps.rule(number) : undefined;
    row.rule_number = number >= FIRST_RULE ? number : 0;
    row.rule = rule ? pathOf(rule) : '';
    row.policy = rule?.policy ?? '';
  }

  return {
    /**
     * Who the vNIC of the zone is, and who its peer was when the packets passed.
     * @param at microseconds since the epoch
     * @returns the endpoint, undefined where none is known
     */
    identify(row: FlowRow, zone: number, peerAddress: number | bigint, at: number): Endpoint | undefined {
      const directory = deps.directory();
      const endpoint = directory.endpointAt(zone);
      const port = directory.portAt(zone);
      const peer = endpoint && directory.peerOf(endpoint, peerAddress, at);
      row.endpoint = port?.ifaceId ?? '';
      row.vm_uuid = endpoint?.vmUuid ?? port?.vmUuid ?? '';
      row.vm = endpoint?.vm ?? port?.vmName ?? '';
      row.project = endpoint?.project ?? '';
      row.application = endpoint?.application ?? '';
      row.network = endpoint?.network ?? '';
      row.vni = endpoint?.vni ?? 0;
      row.peer_endpoint = peer?.ifaceId ?? '';
      row.peer_vm_uuid = peer?.vmUuid ?? '';
      row.peer_vm = peer?.vm ?? '';
      row.peer_project = peer?.project ?? '';
      row.peer_application = peer?.application ?? '';
      row.peer_network = peer?.network ?? '';
      row.peer_host = peer?.host ?? '';
      row.tunnel_peer =
        peer?.encapAddress === undefined || peer.encapAddress === encapAddress ? NO_ADDRESS : peer.encapAddress;
      row.identity_source = endpoint?.identitySource ?? (port ? 'ovsdb' : '');
      row.identity_confidence = endpoint?.confidence ?? (port ? 50 : 0);
      return endpoint;
    },
    /** @param number of the rule that let it begin; 0: none applied */
    allow(row: FlowRow, number: number): void {
      row.verdict = 'allow';
      row.reason = '';
      nameRule(row, number);
    },
    /** @param point of a drop: a rule's number, whether or not its name is known, or a built-in reason */
    refuse(row: FlowRow, point: number): void {
      if (point >= FIRST_RULE) {
        row.verdict = 'deny';
        row.reason = 'POLICY_DENY';
      } else {
        const isDeny = point === DROP_REASONS.DEFAULT_DENY.number || point === DROP_REASONS.POLICY_DENY.number;
        row.verdict = isDeny ? 'deny' : 'drop';
        row.reason = REASON_NAMES.get(point) ?? `REASON_${point}`;
      }
      nameRule(row, point);
    },
  };
}

export type RowNames = ReturnType<typeof createRowNames>;

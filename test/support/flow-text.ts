import type { FieldName } from '../../src/wire/openflow/fields.ts';
import type { Action, FieldSlice, Flow, Value } from '../../src/wire/openflow/flow.ts';

/**
 * Flows in the language of ovs-ofctl (ovs-actions(7), ovs-fields(7)). It shares nothing with the OpenFlow codec, so that a test can put compiled flows into
 * a real switch by Open vSwitch's own encoder.
 */
export function flowText(flow: Flow): string {
  const match = Object.entries(flow.match).map(([field, value]) => fieldText(field as FieldName, value));
  const actions = [
    ...flow.actions.map(actionText),
    ...(flow.gotoTable === undefined ? [] : [`goto_table:${flow.gotoTable}`]),
  ];
  const flags = flow.flags === 1 ? ['send_flow_rem'] : [];
  const head = [
    ...flags,
    `table=${flow.table}`,
    `priority=${flow.priority}`,
    `cookie=0x${flow.cookie.toString(16)}`,
    ...match,
  ];
  return `${head.join(',')} actions=${actions.length === 0 ? 'drop' : actions.join(',')}`;
}

/** Where ovs-ofctl's name of a field is not that of OXM. */
const NAMES: Partial<Record<FieldName, string>> = {
  nxm_in_port: 'in_port',
  eth_src: 'dl_src',
  eth_dst: 'dl_dst',
  eth_type: 'dl_type',
  ip_proto: 'nw_proto',
  ipv4_src: 'nw_src',
  ipv4_dst: 'nw_dst',
  icmpv4_type: 'icmp_type',
  icmpv4_code: 'icmp_code',
};
const MACS = new Set<FieldName>(['eth_src', 'eth_dst', 'arp_sha', 'arp_tha']);
const IPV4 = new Set<FieldName>([
  'ipv4_src',
  'ipv4_dst',
  'arp_spa',
  'arp_tpa',
  'tun_src',
  'tun_dst',
  'ct_nw_src',
  'ct_nw_dst',
]);

function nameOf(field: FieldName): string {
  return NAMES[field] ?? field;
}

function valueText(field: FieldName, value: Value): string {
  const digits = (length: number): string => value.toString(16).padStart(length, '0');
  if (MACS.has(field)) return digits(12).replace(/..(?!$)/g, '$&:');
  if (IPV4.has(field)) return (digits(8).match(/../g) ?? []).map((octet) => Number.parseInt(octet, 16)).join('.');
  // Ports are read as decimal numbers only.
  return nameOf(field) === 'in_port' ? String(value) : `0x${value.toString(16)}`;
}

/** ovs-ofctl knows these bits by name only. */
const FRAGMENTS: Readonly<Record<string, string>> = { '1,1': 'yes', '3': 'later', '0,2': 'not_later' };

function fieldText(field: FieldName, value: Value | readonly [Value, Value] | undefined): string {
  if (value === undefined) return '';
  if (field === 'ip_frag') return `ip_frag=${FRAGMENTS[String(value)]}`;
  if (typeof value !== 'object') return `${nameOf(field)}=${valueText(field, value)}`;
  return `${nameOf(field)}=${valueText(field, value[0])}/${valueText(field, value[1])}`;
}

function sliceText({ field, offset, bits }: FieldSlice): string {
  if (offset === undefined || bits === undefined) return `${nameOf(field)}[]`;
  return `${nameOf(field)}[${offset}..${offset + bits - 1}]`;
}

function actionText(action: Action): string {
  switch (action.type) {
    case 'output':
      return `output:${action.port}`;
    case 'set_field':
      return action.mask === undefined
        ? `set_field:${valueText(action.field, action.value)}->${nameOf(action.field)}`
        : `set_field:${valueText(action.field, action.value)}/${valueText(action.field, action.mask)}->${nameOf(action.field)}`;
    case 'copy_field':
      return `move:${sliceText(action.src)}->${sliceText(action.dst)}`;
    case 'resubmit':
      return `resubmit(,${action.table})`;
    case 'ct': {
      const zone =
        action.zone === undefined
          ? []
          : [`zone=${typeof action.zone === 'number' ? action.zone : sliceText(action.zone)}`];
      const nested = action.actions === undefined ? [] : [`exec(${action.actions.map(actionText).join(',')})`];
      const parts = [
        ...(action.commit === true ? ['commit'] : []),
        ...zone,
        ...(action.table === undefined ? [] : [`table=${action.table}`]),
        ...nested,
      ];
      return `ct(${parts.join(',')})`;
    }
    case 'conjunction':
      return `conjunction(${action.id},${action.clause + 1}/${action.clauses})`;
    case 'controller': {
      const userdata = [...(action.userdata ?? [])].map((octet) => octet.toString(16).padStart(2, '0')).join('.');
      return `controller(id=${action.controllerId ?? 0},userdata=${userdata},max_len=65535)`;
    }
    case 'sample':
      return `sample(probability=${action.probability},collector_set_id=${action.collectorSet},obs_domain_id=${action.domain},obs_point_id=${action.point})`;
    case 'meter':
      return `meter:${action.meter}`;
    case 'dec_ttl':
      return 'dec_ttl';
    default:
      throw new Error(`the pipeline has no ${action.type} action; teach it to this renderer`);
  }
}

/**
 * The pipeline as data: every table of the integration bridge, in the order in which a packet meets them. `docs` and `trace` name tables by it.
 * Numbers leave gaps, so that a table can be put between two others without renumbering the rest.
 */
export const TABLES = {
  classify: {
    number: 0,
    does: 'Where the packet comes from: port or tunnel to endpoint, network and trace',
    miss: 'drop UNBOUND',
  },
  count: { number: 5, does: 'Counts what a vNIC sent (domain received)', miss: '' },
  portSecurity: {
    number: 10,
    does: 'Source MAC and IP address are those that the endpoint was given',
    miss: 'drop PORT_SECURITY',
  },
  arp: {
    number: 15,
    does: 'Answers ARP for known addresses of the network and for its router',
    miss: 'drop ARP_UNRESOLVED',
  },
  egressTrack: { number: 20, does: "Conntrack in the sender's zone", miss: 'drop UNSUPPORTED' },
  egressState: { number: 25, does: 'Original direction: egress rules; reply: ingress rules', miss: 'drop CT_INVALID' },
  routing: { number: 40, does: 'Router: echo, TTL, network of the destination', miss: 'destination' },
  neighbour: { number: 45, does: 'Destination address to MAC', miss: 'drop UNKNOWN_DESTINATION' },
  destination: { number: 50, does: 'Network and MAC to local port or remote host', miss: 'drop UNKNOWN_DESTINATION' },
  ingressTrack: { number: 60, does: "Conntrack in the receiver's zone", miss: 'drop UNSUPPORTED' },
  ingressState: { number: 65, does: 'Original direction: ingress rules; reply: egress rules', miss: 'drop CT_INVALID' },
  egressRules: { number: 70, does: 'Rules on connections that the judged endpoint opens', miss: 'allowed by no rule' },
  ingressRules: {
    number: 75,
    does: 'Rules on connections that are opened to the judged endpoint',
    miss: 'allowed by no rule',
  },
  record: {
    number: 80,
    does: 'Reports the decision (domains egress and ingress) and notes it for its side',
    miss: 'enforce',
  },
  enforce: { number: 85, does: 'Commits what is allowed, drops what is not', miss: 'drop POLICY_DENY' },
  committed: { number: 90, does: 'What conntrack gives back is what it was given', miss: 'drop CT_INVALID' },
  output: {
    number: 100,
    does: 'Counts and delivers to a local vNIC (domain delivered)',
    miss: 'drop UNKNOWN_DESTINATION',
  },
  tunnel: {
    number: 105,
    does: 'Into the Geneve tunnel to the host of the destination',
    miss: 'drop UNKNOWN_DESTINATION',
  },
  drop: { number: 110, does: 'Every refusal ends here, with its reason in a register', miss: '' },
} as const satisfies Record<string, { number: number; does: string; miss: string }>;

export type TableName = keyof typeof TABLES;

const NAMES = new Map<number, TableName>(
  Object.entries(TABLES).map(([name, table]) => [table.number, name as TableName]),
);

export function tableName(number: number): TableName | undefined {
  return NAMES.get(number);
}

/** First byte of each cookie of ours: a dump tells our flows from others', and diff touches no other. */
const COOKIE_OWNER = 0x53n;
const COOKIE_OWNER_SHIFT = 56n;

/** Owner (8 bits), table (8), 16 zero bits, then 32 bits of what the flow is about: an ofport, a VNI, a rule's number or a drop reason. */
export function cookieOf(table: TableName, subject: number): bigint {
  return (COOKIE_OWNER << COOKIE_OWNER_SHIFT) | (BigInt(TABLES[table].number) << 48n) | BigInt(subject >>> 0);
}

/** What a cookie of ours says; undefined for others' cookies, and for tables of another version. */
export function explainCookie(cookie: bigint): { readonly table: TableName; readonly subject: number } | undefined {
  const table = isOwnCookie(cookie) ? tableName(Number((cookie >> 48n) & 0xffn)) : undefined;
  return table === undefined ? undefined : { table, subject: Number(cookie & 0xffffffffn) };
}

export function isOwnCookie(cookie: bigint): boolean {
  return cookie >> COOKIE_OWNER_SHIFT === COOKIE_OWNER;
}

/** Rule priorities by tier: ranks go from `first` up, one a rule; a tier that isolates denies at its `first` - 1. */
export const PRIORITY_BANDS = {
  emergency: { first: 50_001, last: 59_999 },
  security: { first: 40_001, last: 49_999 },
  platform: { first: 30_001, last: 39_999 },
  application: { first: 20_001, last: 29_999 },
  baseline: { first: 10_001, last: 19_999 },
} as const;

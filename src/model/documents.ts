import { type Static, type TSchema, Type } from 'typebox';

/**
 * What people declare. Kubernetes-like documents, `apiVersion: sonde/v1`. Field names and meanings are part of the API: they change by version only.
 */
export const API_VERSION = 'sonde/v1';

const Name = Type.String({
  pattern: '^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$',
  description: '1 to 63 of a-z, 0-9, - and ., not - or . at an end',
});
const Cidr = Type.String({ pattern: '^[0-9a-fA-F.:]+/[0-9]{1,3}$', description: 'an address block, as 10.0.0.0/24' });
const Ip = Type.String({ pattern: '^[0-9a-fA-F.:]+$', description: 'an IP address' });
const Mac = Type.String({
  pattern: '^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$',
  description: 'a MAC address, as 02:00:00:00:00:01',
});
const Labels = Type.Record(Type.String(), Type.String(), { description: 'labels, as tier: db' });

const strict = { additionalProperties: false } as const;

/** Selects endpoints by what is known of them, or addresses. Fields combine: all must hold. */
export const Selector = Type.Object(
  {
    labels: Type.Optional(Labels),
    application: Type.Optional(Type.String()),
    project: Type.Optional(Type.String()),
    vm: Type.Optional(Type.String()),
    network: Type.Optional(Name),
    /** Addresses, managed or not. Stands alone. */
    cidr: Type.Optional(Cidr),
  },
  { ...strict, minProperties: 1, description: 'a selector: labels, application, project, vm, network, or cidr' },
);
export type Selector = Static<typeof Selector>;

/** A group by name, or a selector on the spot. */
const Peer = Type.Union([Type.Object({ group: Name }, strict), Selector], {
  description: '{group: NAME} or a selector',
});
export type Peer = Static<typeof Peer>;

const PROTOCOLS = ['tcp', 'udp', 'sctp', 'icmp'] as const;

const PortMatch = Type.Object(
  {
    protocol: Type.Union(
      PROTOCOLS.map((name) => Type.Literal(name)) as [ReturnType<typeof Type.Literal<(typeof PROTOCOLS)[number]>>],
      {
        description: 'tcp, udp, sctp or icmp',
      },
    ),
    /** Destination port or range; absent: all. Not with icmp. */
    port: Type.Optional(
      Type.Union([Type.Integer({ minimum: 1, maximum: 65535 }), Type.String({ pattern: '^[0-9]{1,5}-[0-9]{1,5}$' })], {
        description: 'a port, 1 to 65535, or a range as 8000-8099',
      }),
    ),
  },
  { ...strict, description: '{protocol, port}' },
);
export type PortMatch = Static<typeof PortMatch>;

const Peers = Type.Array(Peer, { minItems: 1, description: 'a list of {group: NAME} or selectors' });

const ruleFields = {
  name: Name,
  action: Type.Union([Type.Literal('allow'), Type.Literal('deny')], { description: 'allow or deny' }),
  /** Absent: any protocol and port. */
  ports: Type.Optional(Type.Array(PortMatch, { minItems: 1, description: 'a list of {protocol, port}' })),
};
const IngressRule = Type.Object({ ...ruleFields, from: Type.Optional(Peers) }, strict);
const EgressRule = Type.Object({ ...ruleFields, to: Type.Optional(Peers) }, strict);

/** From the first judge to the last. `isolates`: who is selected by a policy of the tier gets what no rule of it allows denied. */
export const TIERS = {
  emergency: { isolates: false },
  security: { isolates: false },
  platform: { isolates: false },
  application: { isolates: true },
  baseline: { isolates: false },
} as const;
export type Tier = keyof typeof TIERS;
const TIER_NAMES = Object.keys(TIERS) as Tier[];

const SPECS = {
  Network: Type.Object(
    {
      subnets: Type.Array(Cidr, { minItems: 1, description: 'a list of address blocks, at least one' }),
      /** Allocated where it is absent. */
      vni: Type.Optional(Type.Integer({ minimum: 1, maximum: 0xffffff })),
    },
    strict,
  ),
  Router: Type.Object(
    {
      interfaces: Type.Array(Type.Object({ network: Name, address: Cidr }, strict), {
        minItems: 1,
        description: 'a list of {network, address}',
      }),
    },
    strict,
  ),
  Endpoint: Type.Object(
    {
      ifaceId: Type.String({ minLength: 1, description: 'external_ids:iface-id of the OVS interface' }),
      network: Name,
      mac: Mac,
      addresses: Type.Array(Ip, { minItems: 1, description: 'a list of IP addresses, at least one' }),
      vm: Type.Object({ name: Type.String({ minLength: 1 }), uuid: Type.Optional(Type.String()) }, strict),
      project: Type.Optional(Type.String()),
      application: Type.Optional(Type.String()),
    },
    strict,
  ),
  Group: Type.Object(
    { members: Type.Array(Selector, { minItems: 1, description: 'a list of selectors: any of them' }) },
    strict,
  ),
  Policy: Type.Object(
    {
      tier: Type.Union(TIER_NAMES.map((name) => Type.Literal(name)) as [ReturnType<typeof Type.Literal<Tier>>], {
        description: TIER_NAMES.join(', '),
      }),
      /** Lower is judged first within a tier; default 1000. */
      order: Type.Optional(Type.Integer({ minimum: 0, maximum: 1_000_000 })),
      appliesTo: Type.Array(Peer, { minItems: 1, description: 'whose traffic it judges' }),
      ingress: Type.Optional(Type.Array(IngressRule, { description: 'a list of rules' })),
      egress: Type.Optional(Type.Array(EgressRule, { description: 'a list of rules' })),
    },
    strict,
  ),
} as const;

export type Kind = keyof typeof SPECS;
export const KINDS = Object.keys(SPECS) as readonly Kind[];

const Metadata = Type.Object({ name: Name, labels: Type.Optional(Labels) }, strict);

function documentOf<K extends Kind>(kind: K) {
  return Type.Object(
    {
      apiVersion: Type.Literal(API_VERSION),
      kind: Type.Literal(kind),
      metadata: Metadata,
      spec: SPECS[kind] as (typeof SPECS)[K],
    },
    strict,
  );
}

/** Schema of a document of each kind. */
export const DOCUMENTS = {
  Network: documentOf('Network'),
  Router: documentOf('Router'),
  Endpoint: documentOf('Endpoint'),
  Group: documentOf('Group'),
  Policy: documentOf('Policy'),
} as const satisfies Record<Kind, TSchema>;

type DocumentOf<K extends Kind> = Static<(typeof DOCUMENTS)[K]>;
export type EndpointDocument = DocumentOf<'Endpoint'>;
export type PolicyDocument = DocumentOf<'Policy'>;
export type Document = { [K in Kind]: DocumentOf<K> }[Kind];
export type IngressRule = Static<typeof IngressRule>;
export type EgressRule = Static<typeof EgressRule>;

/** What the server adds to a rule. */
export interface RuleStatus {
  /** Names the rule in registers, conntrack labels, flow rows and traces; never given twice. */
  readonly number: number;
  /** OpenFlow priority, unique among the rules of its direction. */
  readonly priority: number;
}

/** What the server adds to a document before it publishes it. */
export interface DocumentStatus {
  /** Network. */
  readonly vni?: number;
  /** Policy: by `ingress/NAME` or `egress/NAME`. */
  readonly rules?: Readonly<Record<string, RuleStatus>>;
}

/** A document as it lies on `sonde.intents`. */
export type StoredDocument = Document & { readonly status: DocumentStatus };
export type Stored<K extends Kind> = DocumentOf<K> & { readonly status: DocumentStatus };

/** `Kind/name`: the key of a document on the bus and in messages. */
export function keyOf(document: { readonly kind: string; readonly metadata: { readonly name: string } }): string {
  return `${document.kind}/${document.metadata.name}`;
}

export function isKind<K extends Kind>(
  document: StoredDocument,
  kind: K,
): document is Extract<StoredDocument, { kind: K }>;
export function isKind<K extends Kind>(document: Document, kind: K): document is Extract<Document, { kind: K }>;
export function isKind(document: Document, kind: Kind): boolean {
  return document.kind === kind;
}

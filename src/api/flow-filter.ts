import { type Static, Type } from 'typebox';
import { parseDuration } from '../config/value-types.ts';
import { DROP_REASONS, type DropReason } from '../model/datapath.ts';
import { SondeError } from '../model/errors.ts';
import type { FlowCursor, FlowFilter } from '../model/flow-filter.ts';

export const Who = (description: string) => Type.Optional(Type.String({ minLength: 1, maxLength: 253, description }));
export const Moment = (description: string) =>
  Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 40,
      description: `${description}: as 5m (ago), or a time as 2026-01-31T12:00:00Z`,
    }),
  );

const REASONS = Object.keys(DROP_REASONS) as DropReason[];
const CURSOR_EXPECTED = 'its time, host and number, as 2026-01-31T12:00:00.000001Z,h1,42';
const PROTOCOL_EXPECTED = 'tcp, udp, sctp, icmp, icmpv6, or a number up to 255';

export const FlowQuery = Type.Object(
  {
    vm: Who('Name, uuid or iface-id of a VM: what it sent and received.'),
    from: Who('Who opened the connection: name, uuid, iface-id or address.'),
    to: Who('Who it was opened to: name, uuid, iface-id or address.'),
    app: Who('Application of either side.'),
    project: Who('Project of either side.'),
    host: Who('Host of either side.'),
    network: Who('Virtual network of either side.'),
    port: Type.Optional(
      Type.Integer({ minimum: 1, maximum: 65_535, description: 'a port of either side, 1 to 65535' }),
    ),
    protocol: Type.Optional(Type.String({ pattern: '^[a-z0-9-]{1,12}$', description: PROTOCOL_EXPECTED })),
    verdict: Type.Optional(Type.Enum(['allow', 'deny', 'drop'], { description: 'allow, deny or drop' })),
    reason: Type.Optional(Type.Enum(REASONS, { description: `why it was dropped: ${REASONS.join(', ')}` })),
    rule: Who('Rule as policy/rule, a policy, or the number of a rule.'),
    since: Moment('Intervals that end at or after it'),
    until: Moment('Intervals that end before it'),
    limit: Type.Integer({ minimum: 1, maximum: 10_000, default: 100, description: 'most rows, 1 to 10000' }),
    order: Type.Optional(Type.Enum(['newest', 'oldest'], { description: 'newest (first, the default) or oldest' })),
    after: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 320,
        description: `only what comes after a row, with order=oldest: ${CURSOR_EXPECTED}`,
      }),
    ),
    format: Type.Enum(['json', 'ndjson'], { default: 'json', description: 'json, or ndjson (a row a line)' }),
  },
  { additionalProperties: false },
);

/** IANA's protocol numbers. */
const PROTOCOL_NUMBERS: Readonly<Record<string, number>> = { icmp: 1, tcp: 6, udp: 17, icmpv6: 58, sctp: 132 };

/** @throws SondeError API_REQUEST_INVALID */
export function flowFilterOf(query: Static<typeof FlowQuery>, now: number): FlowFilter {
  const { protocol, rule, since, until, after, format: _, ...same } = query;
  if (after !== undefined && query.order !== 'oldest')
    throw invalid('order', query.order ?? '', 'oldest, where after is given');
  return {
    ...same,
    ...(protocol === undefined ? {} : { protocol: protocolNumber(protocol) }),
    ...(rule === undefined ? {} : { rule: /^\d{1,9}$/.test(rule) ? Number(rule) : rule }),
    ...(after === undefined ? {} : { after: cursorOf(after) }),
    ...spanOf({ since, until }, now),
  };
}

function cursorOf(text: string): FlowCursor {
  const [, seconds = '', micros = '', host = '', number = ''] =
    /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{6})Z,(.{1,253}),(\d{1,19})$/.exec(text) ?? [];
  const ms = Date.parse(`${seconds}Z`);
  if (Number.isNaN(ms)) throw invalid('after', text, CURSOR_EXPECTED);
  return { time: ms * 1000 + Number(micros), host, number };
}

/** @throws SondeError API_REQUEST_INVALID */
export function spanOf(
  { since, until }: { readonly since?: string | undefined; readonly until?: string | undefined },
  now: number,
): { since?: number; until?: number } {
  return {
    ...(since === undefined ? {} : { since: moment('since', since, now) }),
    ...(until === undefined ? {} : { until: moment('until', until, now) }),
  };
}

function protocolNumber(text: string): number {
  const number = PROTOCOL_NUMBERS[text] ?? (/^\d{1,3}$/.test(text) ? Number(text) : Number.NaN);
  if (number <= 255) return number;
  throw invalid('protocol', text, PROTOCOL_EXPECTED);
}

/** Milliseconds since the epoch of `5m` (ago) or an ISO 8601 time; a time without a zone is UTC. */
function moment(field: string, text: string, now: number): number {
  const ago = parseDuration(text);
  if (ago !== undefined) return now - ago;
  const at = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?$/.test(text)
    ? Date.parse(/(T.*(Z|[+-]\d\d:?\d\d))|^[^T]*$/.test(text) ? text : `${text}Z`)
    : Number.NaN;
  if (!Number.isNaN(at) && at >= 0) return at;
  throw invalid(field, text, 'a duration as 5m, or a time as 2026-01-31T12:00:00Z');
}

function invalid(field: string, found: string, expected: string): SondeError {
  return new SondeError('API_REQUEST_INVALID', { part: 'query', field, found: JSON.stringify(found), expected });
}

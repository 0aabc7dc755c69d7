import { stripVTControlCharacters, styleText } from 'node:util';
import type { TraceHop, Verdict, VerdictResult } from '../../model/trace.ts';

export interface RenderOptions {
  readonly colour: boolean;
  /** Columns of the terminal. Less than 44, which an id needs, counts as 44. */
  readonly width: number;
}

type Style = Parameters<typeof styleText>[0];

const STYLE_OF_ACTION = {
  Injected: 'cyan',
  Allowed: 'green',
  Forwarded: 'green',
  Routed: 'green',
  Sent: 'green',
  Received: 'green',
  Delivered: ['bold', 'green'],
  Answered: ['bold', 'green'],
  Dropped: ['bold', 'red'],
  Failed: ['bold', 'red'],
  Missing: ['bold', 'yellow'],
} as const satisfies Record<TraceHop['action'], Style>;

const STYLE_OF_RESULT = {
  delivered: ['bold', 'green'],
  replied: ['bold', 'green'],
  refused: ['bold', 'red'],
  dropped: ['bold', 'red'],
  lost: ['bold', 'red'],
  inconclusive: ['bold', 'yellow'],
} as const satisfies Record<VerdictResult, Style>;

const MIN_WIDTH = 44;
const COMPONENT_COLUMNS = 14;
const ACTION_COLUMNS = 10;

/**
 * A verdict as a tree for a terminal: who sent what to whom, the steps on each host in order, and the end with its cause, evidence and what to
 * check next. Lines end with a newline each, and none is wider than the terminal. Pure. Names in it come from users, so control characters
 * are taken out.
 */
export function renderTrace(verdict: Verdict, options: RenderOptions): string {
  const width = Math.max(MIN_WIDTH, options.width);
  const paint = (style: Style, text: string): string =>
    options.colour ? styleText(style, text, { validateStream: false }) : text;
  const lines: string[] = [];
  const put = (lead: string, text: string, hanging = lead, style?: Style): void => {
    wrap(clean(text), width - lead.length).forEach((line, i) => {
      lines.push((i === 0 ? lead : hanging.padEnd(lead.length)) + (style === undefined ? line : paint(style, line)));
    });
  };

  put('', header(verdict), '', 'bold');
  put('', `trace ${verdict.id}`, '', 'dim');
  lines.push('│');
  for (const { host, hops } of byHost(verdict.hops)) {
    put('├─ ', host, '│', 'bold');
    hops.forEach((hop, i) => {
      const branch = i === hops.length - 1 ? '└─' : '├─';
      const component = hop.component.padEnd(COMPONENT_COLUMNS);
      const action = paint(STYLE_OF_ACTION[hop.action], hop.action.padEnd(ACTION_COLUMNS));
      const lead = `│  ${branch} ${component}`;
      const hanging = `│  ${branch === '└─' ? ' ' : '│'}`;
      const space = lead.length + ACTION_COLUMNS;
      const [first = '', ...rest] = wrap(clean(hop.detail), width - space);
      lines.push(`${lead}${action}${first}`.trimEnd());
      for (const line of rest) lines.push(hanging.padEnd(space) + line);
    });
    lines.push('│');
  }

  const where = verdict.host === null ? '' : ` ${verdict.result === 'lost' ? 'after' : 'on'} ${verdict.host}`;
  const cause = verdict.cause === null ? '' : `: ${verdict.cause}`;
  put('└─ ', `${verdict.result.toUpperCase()}${where}${cause}`, '', STYLE_OF_RESULT[verdict.result]);
  put('   ', verdict.sentence);
  put('   ', `Asked at ${isoTime(verdict.requestedAt)}, verdict after ${duration(verdict.durationMicros)}.`);
  if (verdict.rule !== null) {
    const { number, name, policy, tier, direction, action } = verdict.rule;
    section('Rule', [`${name} (${number}): ${direction} ${action}, policy ${policy}, tier ${tier}`]);
  }
  section(
    'Evidence',
    verdict.evidence.map(({ source, fact }) => `${source}: ${fact}`),
  );
  section('Check next', verdict.next);
  return `${lines.join('\n')}\n`;

  function section(heading: string, items: readonly string[]): void {
    if (items.length === 0) return;
    lines.push(`   ${paint('bold', heading)}`);
    for (const item of items) put('   - ', item, '     ');
  }
}

/** Exit status of a command that traces: 0 the packet arrived, 1 it did not, 2 nobody can say. */
export function exitStatusOf(verdict: Pick<Verdict, 'result'>): 0 | 1 | 2 {
  switch (verdict.result) {
    case 'delivered':
    case 'replied':
      return 0;
    case 'inconclusive':
      return 2;
    default:
      return 1;
  }
}

function header({ source, destination, packet }: Verdict): string {
  const end = ({ name, address }: Verdict['source']) => (name === address ? address : `${name} (${address})`);
  const ports =
    packet.protocol === 'icmp' ? 'icmp echo' : `${packet.protocol} ${packet.sourcePort} > ${packet.destinationPort}`;
  const size = packet.size === null ? '' : `, ${packet.size} octets`;
  return `${end(source)} -> ${end(destination)}, ${ports}, ttl ${packet.ttl}${size}`;
}

/** Neighbouring hops of one host together, so that a path that comes back to a host shows it twice. */
function byHost(hops: readonly TraceHop[]): { host: string; hops: TraceHop[] }[] {
  const groups: { host: string; hops: TraceHop[] }[] = [];
  for (const hop of hops) {
    const last = groups.at(-1);
    if (last?.host === hop.host) last.hops.push(hop);
    else groups.push({ host: hop.host, hops: [hop] });
  }
  return groups;
}

/** Breaks text at spaces, and words that are longer than a line where they end. At least one line. */
function wrap(text: string, columns: number): string[] {
  const lines: string[] = [''];
  for (const word of text.split(' ')) {
    const line = lines.at(-1) ?? '';
    const joined = line === '' ? word : `${line} ${word}`;
    if (joined.length <= columns) {
      lines[lines.length - 1] = joined;
      continue;
    }
    if (line !== '') lines.push('');
    let rest = word;
    for (; rest.length > columns; rest = rest.slice(columns)) lines.splice(-1, 1, rest.slice(0, columns), '');
    lines[lines.length - 1] = rest;
  }
  return lines;
}

function clean(text: string): string {
  return stripVTControlCharacters(text).replace(/\p{Cc}/gu, ' ');
}

function isoTime(micros: number): string {
  return new Date(micros / 1000).toISOString();
}

function duration(micros: number): string {
  return micros < 1_000_000 ? `${(micros / 1000).toFixed(1)} ms` : `${(micros / 1_000_000).toFixed(2)} s`;
}

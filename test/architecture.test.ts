import { dirname, join, normalize, relative } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type SourceFile, sourcesOf } from '../scripts/docs/sources.ts';

/**
 * Who may import whom, and why. A part is a folder of src, or a file that lies in src itself. What is not listed may not be imported: a new direction
 * comes with its reason.
 */
const MAY_IMPORT: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  wire: {},
  model: {
    wire: 'nouns hold addresses, which the wire knows how to write',
  },
  config: {
    model: 'the catalogue of errors',
  },
  telemetry: {
    model: 'the catalogue of errors',
    config: 'levels and addresses as they are configured',
  },
  link: {
    model: 'errors and nouns',
    wire: 'the codecs of the peer',
    telemetry: 'tables of metrics',
  },
  bus: {
    model: 'errors and nouns',
    wire: 'framing and compression',
    telemetry: 'tables of metrics',
  },
  probe: {
    bus: 'rows go to the spool',
    link: 'peers that tell facts',
    model: 'rows and identity',
    wire: 'codecs of what is counted',
    telemetry: 'tables of metrics',
  },
  trace: {
    bus: 'requests and observations',
    link: 'the switch that a packet is put into',
    model: 'requests, observations, verdicts',
    wire: 'codecs of packets',
    telemetry: 'tables of metrics',
  },
  control: {
    bus: 'documents, and what is realized',
    link: 'the switch that is programmed',
    model: 'documents and the pipeline',
    wire: 'codecs of flows',
    telemetry: 'tables of metrics',
  },
  collector: {
    bus: 'what is to be stored',
    model: 'columns',
    wire: 'blocks of ClickHouse',
    telemetry: 'tables of metrics',
  },
  api: {
    config: 'what may be listened on, and how durations are written',
    model: 'schemas of what is asked and answered',
    wire: 'addresses as text',
    telemetry: 'tables of metrics',
  },
  lab: {
    link: 'the switches that it starts',
    model: 'errors and nouns',
    wire: 'addresses',
  },
};

/** What wires parts together may import everything but one another's callers. */
const ROOTS = ['agent.ts', 'agent-probe.ts', 'agent-switch.ts', 'server.ts', 'cli'] as const;
const ROOTS_MAY_NOT: Readonly<Record<(typeof ROOTS)[number], readonly string[]>> = {
  'agent.ts': ['cli', 'server.ts', 'api', 'collector', 'lab'],
  'agent-probe.ts': ['cli', 'server.ts', 'agent.ts', 'api', 'collector', 'trace', 'lab'],
  'agent-switch.ts': ['cli', 'server.ts', 'agent.ts', 'api', 'collector', 'probe', 'lab'],
  'server.ts': ['cli', 'agent.ts', 'probe', 'lab'],
  cli: ['probe', 'trace', 'control', 'collector'],
};

/** Near 300 lines is the aim; tables may be longer. */
const MOST_LINES = 400;
const LONG_FILES: Readonly<Record<string, string>> = {
  'src/model/errors.ts': 'the catalogue of errors, a table',
  'src/model/flow.ts': 'the columns of a flow row, a table',
};

/** Files that throw a bare Error, which a person never meets: each stands for a mistake in this program. */
const BARE_ERRORS: Readonly<Record<string, string>> = {
  'src/collector/partition-writer.ts': 'a bus that delivers against its own contract',
  'src/trace/packet.ts': 'encoder: a field that its caller has checked',
  'src/wire/native/block-writer.ts': 'encoder: rows and columns that do not fit',
  'src/wire/native/column-writer.ts': 'encoder: a value that is not of its type',
  'src/wire/native/scalars.ts': 'encoder: a value that is not of its type',
  'src/wire/ovsdb/tables.ts': 'encoder: a column that the schema does not have',
  'src/wire/ovsdb/value.ts': 'encoder: a value that is not of its type',
  'src/wire/packet/encode.ts': 'encoder: a field that does not fit',
  'src/wire/packet/guest-packets.ts': 'encoder: a packet that cannot be',
  'src/wire/packet/layout.ts': 'encoder: a field that does not fit',
};

const FILES = sourcesOf('src');

const partOf = (path: string): string => path.split('/')[1] ?? '';

interface Import {
  readonly from: SourceFile;
  readonly specifier: string;
}

/** Static, dynamic and type imports, and re-exports. */
function importsOf(from: SourceFile): Import[] {
  return [...from.text.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*'([^']+)'/g)].map(([, specifier = '']) => ({
    from,
    specifier,
  }));
}

/** The part that an import leads to; undefined for packages. */
function targetOf({ from, specifier }: Import): string | undefined {
  if (!specifier.startsWith('.')) return undefined;
  return partOf(join('src', relative('src', normalize(join(dirname(from.path), specifier)))));
}

const IMPORTS = FILES.flatMap(importsOf);
const say = ({ from, specifier }: Import): string => `${from.path} imports ${specifier}`;

describe('imports', () => {
  test('are found at all', () => {
    expect(IMPORTS.length).toBeGreaterThan(200);
    const example = {
      path: 'src/api/x.ts',
      text: `import type { A } from '../model/a.ts';\nawait import('../bus/b.ts');\nexport * from './c.ts';`,
    };
    expect(importsOf(example).map(targetOf)).toEqual(['model', 'bus', 'api']);
  });

  test('go in the directions that have a reason', () => {
    const wrong = IMPORTS.filter((each) => {
      const from = partOf(each.from.path);
      const to = targetOf(each);
      if (to === undefined || to === from) return false;
      if ((ROOTS as readonly string[]).includes(from))
        return ROOTS_MAY_NOT[from as (typeof ROOTS)[number]].includes(to);
      return MAY_IMPORT[from]?.[to] === undefined;
    });
    expect(wrong.map(say)).toEqual([]);
  });

  test('every part is known here', () => {
    const parts = new Set(FILES.map(({ path }) => partOf(path)));
    expect([...parts].toSorted()).toEqual([...Object.keys(MAY_IMPORT), ...ROOTS].toSorted());
  });

  test('the four parts meet in what wires them alone: they could run on different machines', () => {
    const four = ['probe', 'trace', 'control', 'collector'];
    const wrong = IMPORTS.filter((each) => {
      const from = partOf(each.from.path);
      const to = targetOf(each);
      return four.includes(from) && to !== undefined && to !== from && four.includes(to);
    });
    expect(wrong.map(say)).toEqual([]);
  });

  test('the wire is pure: no socket, file, clock or logger, and no package that has one', () => {
    const wrong = IMPORTS.filter((each) => partOf(each.from.path) === 'wire' && targetOf(each) === undefined);
    expect(wrong.map(say)).toEqual([]);
    const impure = FILES.filter(({ path }) => partOf(path) === 'wire').flatMap(({ path, text }) =>
      [
        ...text.matchAll(
          /\b(?:Date\.now|new Date\(\)|process\.|console\.|setTimeout|setInterval|Math\.random|Buffer\.)/g,
        ),
      ].map(([word]) => `${path} uses ${word}`),
    );
    expect(impure).toEqual([]);
  });

  test('render functions are pure: they print nothing and ask nobody', () => {
    const wrong = FILES.filter(({ path }) => path.startsWith('src/cli/render/')).filter(({ text }) =>
      /\bprocess\.|console\.|Date\.now|from 'node:(?!util')/.test(text),
    );
    expect(wrong.map(({ path }) => path)).toEqual([]);
  });

  test('Kafka is known to one file and its parts, so that the bus stays one interface', () => {
    const KAFKA = /^src\/bus\/kafka(\.ts$|\/)/;
    const users = IMPORTS.filter(({ specifier }) => specifier.startsWith('kafkajs')).map(({ from }) => from.path);
    expect(users.filter((path) => path.startsWith('src/') && !KAFKA.test(path))).toEqual([]);
    const ofParts = IMPORTS.filter(({ from, specifier }) => specifier.includes('kafka/') && !KAFKA.test(from.path));
    expect(ofParts.filter(({ from }) => from.path.startsWith('src/')).map(say)).toEqual([]);
  });

  test('name the file that is there, with its ending: types are stripped, nothing else is done to them', () => {
    const paths = new Set(FILES.map(({ path }) => path));
    const wrong = IMPORTS.filter(
      ({ from, specifier }) => specifier.startsWith('.') && !paths.has(normalize(join(dirname(from.path), specifier))),
    );
    expect(wrong.map(say)).toEqual([]);
  });
});

test('files stay short enough to read in one go', () => {
  const long = FILES.filter(({ path, text }) => text.split('\n').length > MOST_LINES && LONG_FILES[path] === undefined);
  expect(long.map(({ path }) => path)).toEqual([]);
});

test('what people can meet is an error of the catalogue', () => {
  const bare = FILES.filter(({ text }) => /\bthrow new (?:Error|TypeError|RangeError)\(/.test(text)).map(
    ({ path }) => path,
  );
  expect(bare.filter((path) => BARE_ERRORS[path] === undefined)).toEqual([]);
  expect(Object.keys(BARE_ERRORS).filter((path) => !bare.includes(path))).toEqual([]);
});

import { parseSync } from 'oxc-parser';
import { parse as parseShell } from 'unbash';

/** A program that a source starts; `unknown`: which one cannot be told from the source. */
export interface ProgramCall {
  readonly where: string;
  readonly program: string;
  readonly unknown?: boolean;
}

/**
 * Functions and methods that start programs, and which argument is the program or its argv. Functions of one file that hand a parameter on to
 * these are found by themselves; those of several files have to be here, which `unknown` calls remind of.
 */
const FUNCTIONS: Readonly<Record<string, number>> = {
  spawn: 0,
  spawnSync: 0,
  exec: 0,
  execSync: 0,
  execFile: 0,
  execFileSync: 0,
  runCommand: 0,
  spawnCommand: 0,
  mustRun: 1,
  startDaemon: 2,
  runProgram: 0,
  inside: 1,
  startInside: 1,
};
/** Where such a method is given an argv first, that is it: a guest has no targets. */
const METHODS: Readonly<Record<string, number>> = {
  exec: 1,
  spawn: 1,
  inside: 1,
  tool: 0,
  startDaemon: 1,
  spawnOutside: 0,
};

/** Programs that start the program which comes after their options. */
const PREFIXES = new Set([
  'timeout',
  'nice',
  'env',
  'setsid',
  'nohup',
  'setpriv',
  'unshare',
  'taskset',
  'stdbuf',
  'xargs',
  'exec',
]);
const BUILTINS = new Set(
  '. : [ break cd command continue echo eval exec exit export false kill printf pwd read return set shift test trap true type ulimit umask unset wait'.split(
    ' ',
  ),
);

/** A node of either syntax tree. */
type Tree = { readonly type: string; readonly [field: string]: unknown };

/** What a variable is, or is unless it is given; of `[file, ...args] = argv` the first. `within`: the function or file that it is of. */
interface Value {
  readonly init: Tree;
  readonly isFirst: boolean;
  readonly within: Tree;
}

function childrenOf(node: object): object[] {
  return Object.values(node)
    .flat()
    .filter((value) => typeof value === 'object' && value !== null);
}

/** What runs a text of sh that it is given: a builtin, and a function of scripts/bare.sh. */
const RUN_TEXT = new Set(['eval', 'apart']);

/** The programs that a text of sh or bash starts. */
export function shellPrograms(text: string): string[] {
  const found: string[] = [];
  const own = new Set<string>();
  const take = (words: readonly string[]): void => {
    const [program, ...rest] = words;
    if (program === undefined || !/^[a-z/][\w./+-]*$/.test(program)) return;
    if (RUN_TEXT.has(program)) found.push(...shellPrograms(rest.join(' ')));
    else if (!BUILTINS.has(program)) found.push(program);
    if (PREFIXES.has(program)) take(rest.slice(rest.findIndex((word) => /^[a-z]/.test(word) && !word.includes('='))));
    else if (program === 'ip' && rest[0] === 'netns' && rest[1] === 'exec') take(rest.slice(3));
    else if ((program === 'sh' || program === 'bash') && /^-\w*c$/.test(rest[0] ?? ''))
      found.push(...shellPrograms(rest[1] ?? ''));
  };
  const walk = (node: object): void => {
    const {
      type,
      name,
      suffix = [],
    } = node as { type?: string; name?: { value: string }; suffix?: { value?: string }[] };
    if (type === 'Function' && name !== undefined) own.add(name.value);
    if (type === 'Command' && name !== undefined) take([name.value, ...suffix.map(({ value = '' }) => value)]);
    for (const child of childrenOf(node)) walk(child);
  };
  // A plain copy: what is within words is computed when it is asked for.
  walk(JSON.parse(JSON.stringify(parseShell(text))));
  return found.filter((program) => !own.has(program));
}

/** The programs that a source of TypeScript starts. */
export function sourcePrograms(path: string, source: string): ProgramCall[] {
  const root = parseSync(path, source).program as unknown as Tree;
  const parents = new Map<object, Tree>();
  const values = new Map<string, Value[]>();
  const calls: Tree[] = [];
  const functions = new Map(Object.entries(FUNCTIONS));
  const methods = new Map(Object.entries(METHODS));
  const found = new Map<string, ProgramCall>();

  const read = (node: Tree): void => {
    for (const child of childrenOf(node) as Tree[]) {
      parents.set(child, node);
      read(child);
    }
    if (node.type === 'CallExpression') calls.push(node);
    // { program = 'nft' }
    if (node.type === 'AssignmentPattern' && parents.get(node)?.type === 'Property') learn(node, node.left, node.right);
    if (node.type === 'VariableDeclarator' && node.init !== null) learn(node, node.id, node.init);
  };
  const learn = (node: Tree, target: unknown, init: unknown): void => {
    const id = target as Tree;
    const isFirst = id.type === 'ArrayPattern';
    const first = isFirst ? (id.elements as (Tree | null)[])[0] : id;
    const name = String(((first?.left as Tree | undefined) ?? first)?.name);
    let within = node;
    while (within.params === undefined && within !== root) within = parents.get(within) ?? root;
    values.set(name, [...(values.get(name) ?? []), { init: init as Tree, isFirst, within }]);
  };
  read(root);

  const add = (node: Tree, program: string, unknown = false): void => {
    const line = source.slice(0, node.start as number).split('\n').length;
    const where = `${path}:${line}`;
    found.set(`${where} ${program}`, { where, program, ...(unknown ? { unknown } : {}) });
  };
  const text = (node: Tree): string => source.slice(node.start as number, node.end as number);
  const isThisNode = (node: Tree): boolean => text(node) === 'process.execPath';

  /** What a variable may be where a node names it: those of the nearest function that has it; of a parameter nothing is known. */
  function valuesOf(node: Tree, name: string): readonly Value[] {
    const parameter = parameterOf(node, name);
    for (let of: Tree | undefined = node; of !== undefined; of = parents.get(of)) {
      const found = (values.get(name) ?? []).filter(({ within }) => within === of);
      if (found.length > 0 || of === parameter?.of) return found;
    }
    return [];
  }

  /** What a string may be; '0' stands for what is put into a template. */
  function strings(node: Tree | undefined): string[] {
    if (node === undefined) return [];
    if (node.type === 'Literal') return typeof node.value === 'string' ? [node.value] : [];
    if (node.type === 'TemplateLiteral')
      return [(node.quasis as { value: { cooked: string } }[]).map(({ value }) => value.cooked).join('0')];
    if (node.type === 'ConditionalExpression')
      return [node.consequent, node.alternate].flatMap((one) => strings(one as Tree));
    if (node.type === 'Identifier') return valuesOf(node, String(node.name)).flatMap(({ init }) => strings(init));
    return [];
  }

  /** The words of a command line, as far as the source tells them. */
  function words(nodes: readonly Tree[]): Tree[] {
    return nodes.flatMap((node) => {
      if (node.type === 'ArrayExpression') return words(node.elements as Tree[]);
      if (node.type !== 'SpreadElement' && node.type !== 'Identifier') return [node];
      const name = String(((node.argument as Tree | undefined) ?? node).name);
      const arrays = valuesOf(node, name).filter(({ init, isFirst }) => init.type === 'ArrayExpression' && !isFirst);
      return arrays.length === 0 ? [node] : words(arrays.map(({ init }) => init));
    });
  }

  /** The function around a node that has a parameter of this name, and its place. */
  function parameterOf(node: Tree, name: string): { readonly of: Tree; readonly at: number } | undefined {
    for (let of = parents.get(node); of !== undefined; of = parents.get(of)) {
      const at = ((of.params as Tree[] | undefined) ?? []).findIndex(
        (each) => ((each.argument ?? each.left ?? each) as Tree).name === name,
      );
      if (at >= 0) return { of, at };
    }
    return undefined;
  }

  /** A function that hands a parameter on starts programs itself. Whether that is news. */
  function passes({ of, at }: { readonly of: Tree; readonly at: number }): void {
    const parent = parents.get(of);
    const isMethod = parent?.type === 'Property';
    const name = String(((of.id ?? parent?.id ?? parent?.key) as Tree | undefined)?.name);
    const outer = parent?.type === 'VariableDeclarator' ? parents.get(parents.get(parent) ?? parent) : parent;
    const isExported = isMethod || outer?.type === 'ExportNamedDeclaration';
    if (isExported && (isMethod ? METHODS : FUNCTIONS)[name] === undefined)
      add(of, `what callers of ${name} in other files name`, true);
    (isMethod ? methods : functions).set(name, at);
  }

  /** The program that a node names: itself, or as the first word of an argv. */
  function program(node: Tree): void {
    const inner = node.expression ?? node.argument;
    const names = strings(node);
    if (inner !== undefined) program(inner as Tree);
    else if (node.type === 'ArrayExpression') command(node.elements as Tree[]);
    else if (node.type === 'ConditionalExpression') {
      program(node.consequent as Tree);
      program(node.alternate as Tree);
    } else if (node.type === 'LogicalExpression') program(node.left as Tree);
    else if (isThisNode(node)) add(node, 'node');
    // argv[0]
    else if (node.type === 'MemberExpression' && node.computed === true) program(node.object as Tree);
    else if (node.type === 'Identifier') variable(node);
    // What is done to an argv leaves its program where it is.
    else if (node.type === 'CallExpression') (node.arguments as Tree[]).filter(isParameter).forEach(program);
    else if (names.length > 0) for (const name of names) add(node, name);
    else add(node, text(node), true);
  }

  function isParameter(node: Tree): boolean {
    return node.type === 'Identifier' && parameterOf(node, String(node.name)) !== undefined;
  }

  function variable(node: Tree): void {
    const parameter = parameterOf(node, String(node.name));
    const known = valuesOf(node, String(node.name));
    if (known.length > 0) for (const { init } of known) program(init);
    else if (parameter !== undefined) passes(parameter);
    else add(node, text(node), true);
  }

  /** A whole command line: its program, and those that it is told to start. */
  function command(nodes: readonly Tree[]): void {
    const line = words(nodes);
    const [first, second, third] = line;
    if (first === undefined) return;
    program(first);
    const [name = ''] = strings(first);
    if (name === 'ip' && strings(second)[0] === 'netns' && strings(third)[0] === 'exec') command(line.slice(4));
    else if ((name === 'sh' || name === 'bash') && /^-\w*c$/.test(strings(second)[0] ?? ''))
      for (const script of strings(third)) for (const one of shellPrograms(script)) add(third as Tree, one);
    else if (PREFIXES.has(name)) {
      const next = line.findIndex((one, at) => at > 0 && (isThisNode(one) || /^[a-z]/.test(strings(one)[0] ?? '')));
      if (next > 0) command(line.slice(next));
    }
  }

  /** Which argument of a call is the program; undefined: it starts none. */
  function placeOf(callee: Tree): number | undefined {
    if (callee.type === 'Identifier') return functions.get(String(callee.name));
    if (callee.type === 'MemberExpression') return methods.get(String((callee.property as Tree).name));
    const isPromisified = callee.type === 'CallExpression' && String((callee.callee as Tree).name) === 'promisify';
    return isPromisified ? placeOf((callee.arguments as Tree[])[0] as Tree) : undefined;
  }

  for (let before = -1; before !== functions.size + methods.size; ) {
    before = functions.size + methods.size;
    // const run = promisify(execFile)
    for (const [name, known] of values)
      for (const { init } of known)
        if (init.type === 'CallExpression' && placeOf(init) !== undefined && (init.callee as Tree).name === 'promisify')
          functions.set(name, placeOf(init) as number);
    for (const call of calls) {
      const place = placeOf(call.callee as Tree);
      const all = call.arguments as Tree[];
      const given = place === undefined ? [] : all.slice(all[0]?.type === 'ArrayExpression' ? 0 : place);
      if (given.length > 0) command(given);
    }
  }
  return [...found.values()];
}

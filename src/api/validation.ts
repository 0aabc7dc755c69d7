import type { FastifySchemaCompiler } from 'fastify';
import type { TSchema } from 'typebox';
import { Compile } from 'typebox/compile';
import { Value } from 'typebox/value';
import { SondeError } from '../model/errors.ts';
import { nearestNames } from '../model/nearest-names.ts';

interface Problem {
  readonly field: string;
  readonly expected: string;
  readonly found: string;
}

interface Shape {
  readonly description?: string;
  readonly properties?: Readonly<Record<string, Shape>>;
}

const LONGEST_QUOTE = 60;

/** Checks a part of a request, after filling defaults and, where all is text, converting it; what does not fit becomes an API_REQUEST_INVALID. */
export const compileValidator: FastifySchemaCompiler<TSchema> = ({ schema, httpPart }) => {
  const validator = Compile(schema);
  const isText = httpPart !== 'body';
  const part = httpPart === 'querystring' ? 'query' : httpPart === 'params' ? 'path' : (httpPart ?? 'request');
  return (given: unknown) => {
    const filled = Value.Default(schema, isText ? { ...(given as object) } : (given ?? {}));
    const value = isText ? Value.Convert(schema, filled) : filled;
    if (validator.Check(value)) return { value };
    const problems = problemsOf(schema as Shape, value, validator.Errors(value));
    const [first = { field: part, expected: 'something else', found: quote(value) }] = problems;
    return { error: new SondeError('API_REQUEST_INVALID', { part, ...first, problems }) };
  };
};

function problemsOf(schema: Shape, value: unknown, errors: readonly unknown[]): Problem[] {
  const problems = new Map<string, Problem>();
  for (const each of errors) {
    const { instancePath, keyword, message, params } = each as {
      instancePath: string;
      keyword: string;
      message: string;
      params: { requiredProperties?: string[]; additionalProperties?: string[] };
    };
    const at = instancePath.split('/').slice(1);
    const names = keyword === 'required' ? params.requiredProperties : params.additionalProperties;
    for (const path of names === undefined ? [at] : names.map((name) => [...at, name])) {
      const field = path.join('.');
      if (problems.has(field)) continue;
      const known = Object.keys(shapeAt(schema, path.slice(0, -1))?.properties ?? {});
      const shape = shapeAt(schema, path);
      const expected =
        shape === undefined && known.length > 0 ? unknownField(field, known) : (shape?.description ?? message);
      const found = path.reduce<unknown>((node, name) => (node as Record<string, unknown> | undefined)?.[name], value);
      problems.set(field, { field: field === '' ? 'the whole' : field, expected, found: quote(found) });
    }
  }
  return [...problems.values()];
}

function unknownField(field: string, known: readonly string[]): string {
  const near = nearestNames(field, known);
  return near.length > 0 ? `no such field (near it: ${near.join(', ')})` : `no such field (known: ${known.join(', ')})`;
}

function shapeAt(schema: Shape, path: readonly string[]): Shape | undefined {
  return path.reduce<Shape | undefined>((shape, name) => shape?.properties?.[name], schema);
}

function quote(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text = JSON.stringify(value);
  return text.length <= LONGEST_QUOTE ? text : `${text.slice(0, LONGEST_QUOTE)}...`;
}

import { type OptionSpec, optionsOf, PROCESSES } from './options.ts';
import { VALUE_TYPES } from './value-types.ts';

/** JSON schema (2020-12) of the configuration file, for editors. */
export function configFileSchema(): Readonly<Record<string, unknown>> {
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'Configuration of Sonde',
    type: 'object',
    additionalProperties: false,
    properties: Object.fromEntries(
      PROCESSES.map((process) => [
        process,
        {
          type: 'object',
          additionalProperties: false,
          properties: Object.fromEntries(optionsOf(process).map(([name, spec]) => [name, schemaOf(spec)])),
        },
      ]),
    ),
  };
}

function schemaOf({ type, canBeNone, default: preset, doc }: OptionSpec): Readonly<Record<string, unknown>> {
  const value = typeof type === 'string' ? VALUE_TYPES[type].jsonSchema : { enum: type };
  return {
    description: doc,
    ...(typeof preset === 'string' ? { default: preset } : {}),
    ...(canBeNone ? { anyOf: [value, { const: 'none' }] } : value),
  };
}

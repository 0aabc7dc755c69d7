import { isAlias, isMap, isScalar, LineCounter, parseDocument } from 'yaml';
import { SondeError } from '../model/errors.ts';
import { nearestNames } from '../model/nearest-names.ts';
import { expectedOf, type FileSettings } from './load.ts';
import { OPTIONS, type OptionName, optionsOf, PROCESSES, type ProcessName } from './options.ts';

/**
 * Reads a configuration file: a section a process, an option a line. All sections are looked at, so that a slip shows wherever the file is read. Pure.
 * @throws SondeError CONFIG_FILE_INVALID, CONFIG_OPTION_UNKNOWN, CONFIG_INVALID
 */
export function parseConfigFile(file: string, text: string): FileSettings {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const at = (offset = 0): string => `${file}:${lines.linePos(offset).line}`;
  const [error] = document.errors;
  if (error !== undefined) {
    throw new SondeError('CONFIG_FILE_INVALID', {
      where: at(error.pos[0]),
      why: error.message.split(/ at line|\n/)[0],
    });
  }
  const sections = new Map<ProcessName, ReadonlyMap<string, { text: string; source: string }>>();
  if (document.contents === null) return sections;
  if (!isMap(document.contents)) {
    throw new SondeError('CONFIG_FILE_INVALID', { where: at(), why: `sections ${PROCESSES.join(', ')} were expected` });
  }
  for (const { key, value } of document.contents.items) {
    const section = String(key) as ProcessName;
    const where = at(key.range[0]);
    if (!PROCESSES.includes(section)) throw unknownOption('section', section, where, PROCESSES);
    if (isScalar(value) && value.value === null) continue;
    if (!isMap(value))
      throw new SondeError('CONFIG_FILE_INVALID', { where, why: `options were expected under ${section}` });
    const values = new Map<string, { text: string; source: string }>();
    sections.set(section, values);
    const known = optionsOf(section).map(([name]) => name);
    for (const item of value.items) {
      const option = String(item.key) as OptionName;
      const source = at(item.key.range[0]);
      if (!known.includes(option)) throw unknownOption(`option of ${section}`, option, source, known);
      if (!isScalar(item.value) || isAlias(item.value)) {
        throw new SondeError('CONFIG_INVALID', {
          option,
          source,
          value: 'a list or a map',
          expected: expectedOf(OPTIONS[option]),
        });
      }
      // As it was written: what looks like a number to YAML is still the text of a name or a size.
      const scalar = item.value.source ?? String(item.value.value ?? '');
      if (scalar !== '') values.set(option, { text: scalar, source });
    }
  }
  return sections;
}

function unknownOption(what: string, name: string, where: string, known: readonly string[]): SondeError {
  const near = nearestNames(name, known);
  return new SondeError('CONFIG_OPTION_UNKNOWN', {
    what,
    name,
    where,
    hint: near.length > 0 ? `near it: ${near.join(', ')}` : `known: ${known.join(', ')}`,
  });
}

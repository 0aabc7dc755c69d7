import { type Decoded, WireError } from '../wire-error.ts';
import { type ElementType, elementOf } from './elements.ts';

/** RFC 7011 section 7: a field specifier with this length has its length in each record. */
const VARIABLE = 0xffff;
const ENTERPRISE_BIT = 0x8000;

/** Set ids (section 3.3.2). */
export const TEMPLATE_SET = 2;
export const OPTIONS_TEMPLATE_SET = 3;

interface TemplateField {
  readonly enterprise: number;
  readonly id: number;
  readonly name: string;
  readonly type: ElementType;
  /** Octets, at least 1; undefined where each record says it. */
  readonly length: number | undefined;
}

/** A template or options template record (RFC 7011 section 3.4). */
export interface Template {
  readonly id: number;
  /**
   * Without those of 0 octets: nothing forbids them, they have no value, and there may be 16,000 of them in a record of 1 octet (RFC 7011 has no least
   * length of a field).
   */
  readonly fields: readonly TemplateField[];
  /** How many fields the record names, those of 0 octets included. */
  readonly fieldCount: number;
  readonly isOptions: boolean;
  /** How many of the first of `fields` are scope. */
  readonly scopeCount: number;
  /** The least that a record can have, octets. */
  readonly leastLength: number;
  /** Whether all records are of the least length. */
  readonly isFixed: boolean;
  /** The record as it came, to tell a repetition from a new definition. */
  readonly bytes: Uint8Array;
}

/** A template set holds templates and withdrawals: a template id without fields, or the set's own id for all of its kind (section 8.1). */
export type TemplateRecord = Template | { readonly withdrawn: number };

/** Reads one record of a template set, or of an options template set, between `at` and `end`. The caller has seen that at least 4 octets are there. */
export function decodeTemplate(
  view: DataView,
  at: number,
  end: number,
  isOptions: boolean,
): Decoded<{ readonly record: TemplateRecord; readonly end: number }> {
  const start = at;
  const id = view.getUint16(at);
  const count = view.getUint16(at + 2);
  const isAll = id === (isOptions ? OPTIONS_TEMPLATE_SET : TEMPLATE_SET);
  if (count === 0 && (isAll || id >= 256)) return { record: { withdrawn: id }, end: at + 4 };
  if (id < 256) return new WireError('value', at, `template id ${id} is reserved for sets`);
  let next = at + 4;
  let scopeFields = 0;
  if (isOptions) {
    if (end - next < 2) return new WireError('truncated', next, 'an options template record is cut');
    scopeFields = view.getUint16(next);
    next += 2;
    if (scopeFields === 0 || scopeFields > count)
      return new WireError('value', next - 2, 'an options template needs a scope');
  }
  const fields: TemplateField[] = [];
  let leastLength = 0;
  let scopeCount = 0;
  let isFixed = true;
  for (let i = 0; i < count; i++) {
    if (end - next < 4) return new WireError('truncated', next, 'a template record is cut');
    const number = view.getUint16(next);
    const length = view.getUint16(next + 2);
    next += 4;
    let enterprise = 0;
    if (number & ENTERPRISE_BIT) {
      if (end - next < 4) return new WireError('truncated', next, 'a template record is cut');
      enterprise = view.getUint32(next);
      next += 4;
    }
    const elementId = number & ~ENTERPRISE_BIT;
    const isVariable = length === VARIABLE;
    // A variable field has at least the octet that says its length.
    leastLength += isVariable ? 1 : length;
    isFixed &&= !isVariable;
    if (length === 0) continue;
    const { name, type } = elementOf(enterprise, elementId);
    fields.push({ enterprise, id: elementId, name, type, length: isVariable ? undefined : length });
    if (i < scopeFields) scopeCount++;
  }
  if (leastLength === 0) return new WireError('value', start, `records of template ${id} would have no octets`);
  const bytes = new Uint8Array(view.buffer, view.byteOffset + start, next - start).slice();
  return { record: { id, fields, fieldCount: count, isOptions, scopeCount, leastLength, isFixed, bytes }, end: next };
}

/** The sets that carry templates, one each (RFC 7011 section 3.3.2). */
export function encodeTemplateSets(templates: readonly Template[]): Uint8Array {
  const sets = new Uint8Array(templates.reduce((length, { bytes }) => length + 4 + bytes.length, 0));
  const view = new DataView(sets.buffer);
  let at = 0;
  for (const { bytes, isOptions } of templates) {
    view.setUint16(at, isOptions ? OPTIONS_TEMPLATE_SET : TEMPLATE_SET);
    view.setUint16(at + 2, 4 + bytes.length);
    sets.set(bytes, at + 4);
    at += 4 + bytes.length;
  }
  return sets;
}

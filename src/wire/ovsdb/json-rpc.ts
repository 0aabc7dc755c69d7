import { type Decoded, WireError } from '../wire-error.ts';
import type { Json, JsonObject } from './json-framer.ts';

/** A message of JSON-RPC 1.0 (RFC 7047, section 4). A request without id is a notification. */
export type RpcMessage =
  | { readonly kind: 'request'; readonly id: Json; readonly method: string; readonly params: readonly Json[] }
  | { readonly kind: 'notification'; readonly method: string; readonly params: readonly Json[] }
  | { readonly kind: 'response'; readonly id: Json; readonly result: Json; readonly error: Json };

/** Tells what an object is. */
export function decodeRpc(object: JsonObject): Decoded<RpcMessage> {
  const { id = null, method, params } = object;
  if (method !== undefined) {
    if (typeof method !== 'string') return new WireError('value', 0, 'method is not a string');
    if (!isArray(params)) return new WireError('value', 0, `params of ${method} is not an array`);
    return id === null ? { kind: 'notification', method, params } : { kind: 'request', id, method, params };
  }
  const { result = null, error = null } = object;
  if (id === null) return new WireError('value', 0, 'neither a request nor an answer: no method, no id');
  return { kind: 'response', id, result, error };
}

/** The text of a message, as it goes on the wire. */
export function encodeRpc(message: RpcMessage): string {
  switch (message.kind) {
    case 'request':
      return JSON.stringify({ method: message.method, params: message.params, id: message.id });
    case 'notification':
      return JSON.stringify({ method: message.method, params: message.params, id: null });
    case 'response':
      return JSON.stringify({ result: message.result, error: message.error, id: message.id });
  }
}

export function isArray(value: Json | undefined): value is readonly Json[] {
  return Array.isArray(value);
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

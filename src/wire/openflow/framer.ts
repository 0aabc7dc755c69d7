import { WireError } from '../wire-error.ts';

const HEADER_OCTETS = 8;

/** Cuts a stream of bytes into messages, whatever the pieces in which it comes. */
export interface OpenFlowFramer {
  /**
   * Messages that are complete with this piece. After a WireError, always the last element, the stream cannot be
   * followed any more.
   */
  push(piece: Uint8Array): readonly (Uint8Array | WireError)[];
}

/** OpenFlow 1.5.1 section 7.1.1: octets 2 and 3 of the header are the length of the message with the header. */
export function createOpenFlowFramer(): OpenFlowFramer {
  /** Pieces of the message in work, and their octets together. */
  let pieces: Uint8Array[] = [];
  let held = 0;
  let failed: WireError | undefined;
  let offset = 0;

  return {
    push(piece) {
      if (failed !== undefined) return [failed];
      const messages: (Uint8Array | WireError)[] = [];
      pieces.push(piece);
      held += piece.length;
      // Join only when a whole message is there, so that many small pieces of a long one are copied once.
      while (held >= 4) {
        const octets = lengthOf(pieces);
        if (octets < HEADER_OCTETS) {
          failed = new WireError('length', offset, `a message of ${octets} octets`);
          messages.push(failed);
          break;
        }
        if (held < octets) break;
        const joined = pieces.length === 1 ? pieces[0]! : join(pieces, held);
        messages.push(joined.subarray(0, octets));
        offset += octets;
        held -= octets;
        pieces = held === 0 ? [] : [joined.subarray(octets)];
      }
      return messages;
    },
  };
}

function lengthOf(pieces: readonly Uint8Array[]): number {
  let skip = 2;
  let value = 0;
  let found = 0;
  for (const piece of pieces) {
    for (; skip < piece.length && found < 2; skip++, found++) value = value * 256 + piece[skip]!;
    if (found === 2) break;
    skip -= piece.length;
  }
  return value;
}

function join(pieces: readonly Uint8Array[], octets: number): Uint8Array {
  const joined = new Uint8Array(octets);
  let at = 0;
  for (const piece of pieces) {
    joined.set(piece, at);
    at += piece.length;
  }
  return joined;
}

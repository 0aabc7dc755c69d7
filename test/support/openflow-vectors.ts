import { readFileSync } from 'node:fs';

function rows(file: string): readonly (readonly string[])[] {
  const text = readFileSync(new URL(`../vectors/${file}`, import.meta.url), 'utf8');
  return text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split('\t'));
}

const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'));

/** Actions as Open vSwitch's own tests have them. */
export const ACTION_VECTORS = rows('ofp-actions.tsv').map(([version = '', text = '', hex = '']) => ({
  version,
  text: text.replace(/^actions=/, ''),
  bytes: bytes(hex),
}));

/** Messages that a real Open vSwitch sent. */
export const MESSAGE_VECTORS = rows('openflow-messages.tsv').map(([name = '', hex = '']) => ({
  name,
  bytes: bytes(hex),
}));

import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import type { BenchCase } from '../bench-case.ts';
import { flowMessages, USUAL_DATA } from '../flow-data.ts';
import { result } from '../statistics.ts';

const ROWS = 400_000;

/** How large flow rows are on the way from agent to store, and what compressing them costs the agent beside its main thread. */
export const wire: BenchCase = {
  name: 'wire',
  async run() {
    let [rows, frames, blocks, micros] = [0, 0, 0, 0];
    for (const message of flowMessages(USUAL_DATA, ROWS)) {
      const block = zstdDecompressSync(message.value);
      const before = process.cpuUsage();
      zstdCompressSync(block);
      const { user, system } = process.cpuUsage(before);
      micros += user + system;
      rows += message.rows;
      frames += message.value.length;
      blocks += block.length;
    }
    return [
      result('wire: messages of 2,000 rows', 'octets/row', [frames / rows], ['at most', 110]),
      result('wire: before compression', 'octets/row', [blocks / rows]),
      result('wire: compressing', 'us/row', [micros / rows]),
    ];
  },
};

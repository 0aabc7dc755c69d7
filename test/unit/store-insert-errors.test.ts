import { expect, it } from 'vitest';
import { insertError } from '../../src/collector/store/chdb-errors.ts';

const codeOf = (number: number | undefined, message = 'DB::Exception: so it is'): string =>
  insertError(Object.assign(new Error(message), { clickhouseCode: number }), '/var/lib/sonde', 'flows').code;

it('an insert that fails for a reason that may pass, or that nobody knows, is tried again', () => {
  // ErrorCodes.cpp: QUOTA_EXCEEDED, NO_ZOOKEEPER, TABLE_IS_READ_ONLY, TOO_FEW_LIVE_REPLICAS, UNKNOWN_STATUS_OF_INSERT, READONLY, STD_EXCEPTION, LOGICAL_ERROR, BAD_ARGUMENTS.
  for (const number of [201, 225, 242, 285, 319, 164, 1001, 49, 36, 77_777, undefined])
    expect(codeOf(number)).toBe('STORE_FAILED');
  expect(codeOf(252, 'Too many parts (3000)')).toBe('STORE_FAILED');
  expect(codeOf(243)).toBe('STORE_DISK_FULL');
});

it('an insert that fails by what is in it is not', () => {
  // CANNOT_READ_ALL_DATA, CANNOT_PARSE_NUMBER, UNKNOWN_TYPE, ZSTD_DECODER_FAILED.
  for (const number of [33, 72, 50, 561]) expect(codeOf(number)).toBe('STORE_DATA_REFUSED');
  expect(codeOf(252, 'Too many partitions for single INSERT block')).toBe('STORE_DATA_REFUSED');
});

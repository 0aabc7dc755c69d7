/**
 * Settings of every insert. One insert is one block, whatever the machine: only then does a repeated token mean the same rows; the limits are far above what the
 * collector puts into one. The views group by a single thread, so splitting their hash tables for several would only cost (a quarter of the whole
 * insert), and what they grouped needs no second pass.
 */
export const INSERT_SETTINGS = {
  async_insert: '0',
  insert_deduplicate: '1',
  input_format_parallel_parsing: '0',
  max_threads: '1',
  max_insert_threads: '1',
  max_insert_block_size: '4000000',
  min_insert_block_size_rows: '4000000',
  min_insert_block_size_bytes: '4000000000',
  group_by_two_level_threshold: '0',
  group_by_two_level_threshold_bytes: '0',
  optimize_on_insert: '0',
} as const;

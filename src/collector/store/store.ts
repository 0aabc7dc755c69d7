/** Values of `{name:Type}` placeholders. They are bound by the engine and never become part of the statement. */
export type QueryParams = Readonly<Record<string, string | number | bigint | boolean | readonly (string | number)[]>>;

/** A statement and the values of its placeholders. It has no SETTINGS and no FORMAT clause: those are the store's. */
export interface Query {
  readonly sql: string;
  readonly params: QueryParams;
}

export interface InsertOptions {
  /** The same token inserts once, however often it is tried. Never use a token for different rows. */
  readonly token: string;
  /** How the chunks are compressed. Frames and blocks of one insert may simply follow each other. */
  readonly compression: 'zstd' | 'none';
}

export interface RawOptions {
  /** A format of ClickHouse, as JSONEachRow, Native or Parquet; a FORMAT clause of the statement goes before it. */
  readonly format: string;
  /** Where names of tables without a database are looked up; default `sonde`. */
  readonly database?: string;
  /** Values of placeholders, as text. */
  readonly params?: Readonly<Record<string, string>>;
}

/** What a statement answered, octet for octet. */
export interface RawResult {
  readonly format: string;
  readonly bytes: Uint8Array;
  readonly rowsRead: number;
  readonly bytesRead: number;
  readonly elapsedSeconds: number;
}

/** ClickHouse's engine, embedded or a server, with the tables of schema.ts in database `sonde`. */
export interface Store {
  /** Opens the store and brings its schema up to date. Throws STORE_* errors that say what is wrong with the directory. */
  start(): Promise<void>;
  /** Waits for what is under way, then closes. */
  stop(): Promise<void>;
  /**
   * Inserts Native blocks into a table of `sonde`, all or nothing a partition of the table, and returns how many rows the engine read from them.
   * Throws STORE_DATA_REFUSED when the bytes are at fault (trying again is no use), another STORE_* error when the store is.
   */
  insertNative(table: string, chunks: readonly Uint8Array[], options: InsertOptions): Promise<number>;
  /** A statement of this program's that changes tables. Throws STORE_QUERY_FAILED and others. */
  execute(sql: string): Promise<void>;
  /** Used share of the disk that holds the tables, 0 to 1. */
  usedShare(): Promise<number>;
  /**
   * One statement of somebody else's, in the engine's read-only mode: it sees tables, and changes nothing, here or on any disk or host.
   * Throws STORE_QUERY_REFUSED, STORE_QUERY_FAILED (`number` is the engine's own) or STORE_QUERY_TIMEOUT.
   */
  raw(sql: string, options: RawOptions): Promise<RawResult>;
  /**
   * Rows as objects. 64-bit integers are numbers where they are safe integers and decimal text beyond; times are ISO 8601 in UTC.
   * Throws STORE_QUERY_FAILED or STORE_QUERY_TIMEOUT.
   */
  query<Row = Readonly<Record<string, unknown>>>(sql: string, params?: QueryParams): Promise<Row[]>;
}

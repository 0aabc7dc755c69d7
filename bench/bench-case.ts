/** One figure of a case. */
export type Result = {
  readonly name: string;
  /** The median of `runs`. */
  readonly value: number;
  readonly unit: string;
  /** What it has to be, as people write it; null: no figure was promised. */
  readonly target: string | null;
  readonly met: boolean | null;
  /** What each run measured, in their order. */
  readonly runs: number[];
};

/** Measures one thing with real components. `run` throws where that cannot be done here. */
export type BenchCase = { readonly name: string; run(): Promise<Result[]> };

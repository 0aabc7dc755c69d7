import type { Reporter, TestModule } from 'vitest/node';

/** What the outer run is told of each test file that ended inside a guest: one line of standard output, after this word. */
export const INNER_LINE = 'SONDE-INNER ';

export interface InnerFile {
  readonly file: string;
  readonly seconds: number;
  readonly tests: readonly InnerTest[];
  /** Why the file could not run as a whole. */
  readonly errors: readonly string[];
}

export interface InnerTest {
  readonly name: string;
  readonly state: 'passed' | 'failed' | 'skipped' | 'pending';
  readonly seconds: number;
  readonly errors: readonly string[];
}

/** Tells of each file as soon as it has ended. */
export default class InnerReporter implements Reporter {
  onTestModuleEnd(module: TestModule): void {
    const tests = [...module.children.allTests()].map((test): InnerTest => {
      const { state, errors = [] } = test.result();
      const seconds = (test.diagnostic()?.duration ?? 0) / 1000;
      return { name: test.fullName, state, seconds, errors: errors.map(textOf) };
    });
    // Hooks fail on their suites.
    const suites = [...module.children.allSuites()].flatMap((suite) => suite.errors());
    const told: InnerFile = {
      file: module.relativeModuleId,
      seconds: module.diagnostic().duration / 1000,
      tests,
      errors: [...module.errors(), ...suites].map(textOf),
    };
    process.stdout.write(`\n${INNER_LINE}${JSON.stringify(told)}\n`);
  }
}

function textOf(error: { readonly message: string; readonly stack?: string; readonly diff?: string }): string {
  const [place = ''] = /(?:test|src)\/\S+:\d+/.exec(error.stack ?? '') ?? [];
  return [error.message, error.diff, place].filter((part) => part !== undefined && part !== '').join('\n');
}

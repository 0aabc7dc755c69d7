/** Statements that only look. The engine's own read-only mode is the wall; this stands before it, since two things pass that wall: KILL and INTO OUTFILE. */
const LOOKS = new Set(['SELECT', 'WITH', 'SHOW', 'DESCRIBE', 'DESC', 'EXPLAIN', 'EXISTS', 'VALUES']);

/** Strings, quoted names and comments, as ClickHouse's lexer has them (src/Parsers/Lexer.cpp). */
const OPAQUE =
  /'(?:[^'\\]|\\[\s\S]|'')*'|`(?:[^`\\]|\\[\s\S]|``)*`|"(?:[^"\\]|\\[\s\S]|"")*"|\$(\w*)\$[\s\S]*?\$\1\$|--[^\n]*|#(?:!| )[^\n]*|\/\*[\s\S]*?\*\//g;

export interface LookingStatement {
  /** Without a final semicolon. */
  readonly sql: string;
  /** Of its own FORMAT clause. */
  readonly format?: string;
}

/** The statement, or why it is refused. */
export function parseLooking(text: string): LookingStatement | string {
  const bare = text.replace(OPAQUE, (piece) => (/^(--|#|\/\*)/.test(piece) ? ' ' : '"').repeat(piece.length));
  const end = bare.replace(/[;\s]+$/, '').length;
  const sql = text.slice(0, end);
  const words = bare.slice(0, end);
  if (words.includes(';')) return 'it has more than one statement';
  const first = /^[\s(]*(\w+)/.exec(words)?.[1]?.toUpperCase() ?? '';
  if (!LOOKS.has(first))
    return first === '' ? 'it is empty' : `only ${[...LOOKS].join(', ')} are answered, and it begins with ${first}`;
  if (/\bINTO\s+OUTFILE\b/i.test(words)) return 'INTO OUTFILE writes a file on the server';
  const format = /\bFORMAT\s+(\w+)(?:\s+SETTINGS\b[\s\S]*)?\s*$/i.exec(words)?.[1];
  return { sql, ...(format === undefined ? {} : { format }) };
}

/**
 * Statements that only look. The engine's own read-only mode is the wall. This stands before it, because that mode lets through KILL, INTO OUTFILE, the function
 * `file` (any file of the machine), DESCRIBE of a table function (it reads files and asks hosts for their columns), and whatever a table function does before
 * the mode is looked at (`sqlite` makes a file).
 */
const LOOKS = new Set(['SELECT', 'WITH', 'SHOW', 'DESCRIBE', 'DESC', 'EXPLAIN', 'EXISTS', 'VALUES']);

/** Functions that read files or reach hosts. The engine takes a function's bare name too, as in `arrayMap(file, …)`, so the name alone is refused. */
const OUTWARD_FUNCTION = /^(file|catboostEvaluate|ai(Classify|Embed|Extract|Generate|Translate))$/i;
/** Table functions that read files, reach hosts or run programs; system test clickhouse-guard holds this to the engine's list. */
export const OUTWARD_TABLE_FUNCTION =
  /^(arrowstream|azure\w*|cluster\w*|cosn|deltaLake\w*|eval|executable\w*|file\w*|gcs|hdfs\w*|hudi\w*|iceberg\w*|input|jdbc|loop|mongodb|mysql|odbc|oss|paimon\w*|postgresql|prometheusQuery\w*|python|redis|remote\w*|s3\w*|sqlite|url|urlCluster|ytsaurus)$/i;

/** Strings, comments and quoted names, as ClickHouse's lexer has them (src/Parsers/Lexer.cpp). Whatever it reads in a way of its own is ODD. */
const OPAQUE =
  /'(?:[^'\\]|\\[\s\S]|'')*'|`(?:[^`\\]|\\[\s\S]|``)*`|"(?:[^"\\]|\\[\s\S]|"")*"|--[^\n]*|\/\*(?:(?!\/\*)[\s\S])*?\*\//g;
/**
 * Outside of strings these begin strings and comments in some versions of the engine and not in others: heredocs, curly quotes, `#`, `//`, long dashes, comments
 * in comments. If the engine and this file disagree on where a string ends, nothing that follows is judged rightly, so they are refused.
 */
const ODD = /[^\t\n\r\x20-\x7e]|[$#'`"]|\/\/|\/\*/;

export interface LookingStatement {
  /** Without a final semicolon. */
  readonly sql: string;
  /** Of its own FORMAT clause. */
  readonly format?: string;
}

/** The statement, or why it is refused. */
export function parseLooking(text: string): LookingStatement | string {
  // No string is worth the doubt: whoever looks for this word can pass it as a parameter.
  if (/outfile/i.test(text))
    return 'INTO OUTFILE writes a file on the server; a string with OUTFILE goes as a parameter';
  const names: { readonly name: string; readonly end: number }[] = [];
  const bare = text.replace(OPAQUE, (piece, at: number) => {
    const isName = /^[`"]/.test(piece);
    if (isName) names.push({ name: piece.slice(1, -1), end: at + piece.length });
    return (isName || piece.startsWith("'") ? '~' : ' ').repeat(piece.length);
  });
  const odd = ODD.exec(bare)?.[0];
  if (odd !== undefined) return `it has ${JSON.stringify(odd)} outside of a string`;
  const end = bare.replace(/[;\s]+$/, '').length;
  const sql = text.slice(0, end);
  const words = bare.slice(0, end);
  if (words.includes(';')) return 'it has more than one statement';
  const first = /^[\s(]*(\w+)/.exec(words)?.[1]?.toUpperCase() ?? '';
  if (!LOOKS.has(first))
    return first === '' ? 'it is empty' : `only ${[...LOOKS].join(', ')} are answered, and it begins with ${first}`;
  for (const { 0: name, index } of words.matchAll(/\w+/g)) names.push({ name, end: index + name.length });
  for (const { name, end: after } of names) {
    if (name.includes('\\')) return 'a quoted name has a backslash';
    const isCalled = /^\s*\(/.test(words.slice(after));
    if (OUTWARD_FUNCTION.test(name) || (isCalled && OUTWARD_TABLE_FUNCTION.test(name)))
      return `${name} reads files, reaches other hosts or runs programs`;
  }
  const format = /\bFORMAT\s+(\w+)(?:\s+SETTINGS\b[\s\S]*)?\s*$/i.exec(words)?.[1];
  return { sql, ...(format === undefined ? {} : { format }) };
}

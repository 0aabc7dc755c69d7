import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { Session } from 'chdb';

/**
 * ClickHouse's engine behind as much of its HTTP interface as a store needs: `node clickhouse-process.ts <directory> <port> <password>`. The engine is the real
 * one, the HTTP is ours: no binary of the server can be had where these tests run. Says its port; runs until it is killed.
 */
const [directory, port, password] = process.argv.slice(2) as [string, string, string];
const session = new Session(join(directory, 'clickhouse'));
const bodies = join(directory, 'bodies');
rmSync(bodies, { recursive: true, force: true });
mkdirSync(bodies, { recursive: true });
let turn: Promise<unknown> = Promise.resolve();
let count = 0;

/** Settings of the address that the engine gets; the others belong to HTTP. */
const SETTINGS = /^(async_insert|insert_|input_format|max_|min_|deduplicate|output_format|date_time|readonly)/;

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { searchParams } = new URL(request.url ?? '/', 'http://x');
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const body = Buffer.concat(chunks);
  const authorization = Buffer.from((request.headers.authorization ?? '').replace(/^Basic /, ''), 'base64').toString();
  const key = request.headers['x-clickhouse-key'] ?? authorization.slice(authorization.indexOf(':') + 1);
  if (key !== password)
    throw Object.assign(new Error('Authentication failed. (AUTHENTICATION_FAILED)'), {
      clickhouseCode: 516,
      status: 403,
    });
  const settings = [...searchParams]
    .filter(([name]) => SETTINGS.test(name))
    .map(([name, value]) => `${name} = '${value.replaceAll("'", "\\'")}'`);
  const query = searchParams.get('query') ?? '';
  if (/^INSERT INTO .* FORMAT Native$/.test(query)) {
    const path = join(bodies, `${count++}.native`);
    writeFileSync(path, body);
    const compression = request.headers['content-encoding'] === 'zstd' ? 'zstd' : 'none';
    const sql = query.replace(
      / FORMAT Native$/,
      ` FROM INFILE '${path}' COMPRESSION '${compression}' SETTINGS ${settings.join(', ')} FORMAT Native`,
    );
    const { rowsRead } = await session.queryAsync(sql);
    rmSync(path);
    response.setHeader('x-clickhouse-summary', JSON.stringify({ read_rows: String(rowsRead) }));
    response.end();
    return;
  }
  const params = Object.fromEntries(
    [...searchParams].filter(([name]) => name.startsWith('param_')).map(([name, value]) => [name.slice(6), value]),
  );
  const sql = [query, body.toString()]
    .filter((text) => text !== '')
    .join('\n')
    .trim();
  const format = /\bFORMAT\s+(\w+)\s*$/i.exec(sql)?.[1];
  const bare = format === undefined ? sql : sql.replace(/\bFORMAT\s+\w+\s*$/i, '');
  const isSelect = /^\s*(SELECT|WITH)/i.test(bare);
  const told = settings.filter((setting) => !setting.startsWith('readonly'));
  const database = searchParams.get('database') ?? request.headers['x-clickhouse-database'] ?? 'default';
  await session.queryAsync(`USE \`${String(database)}\``);
  const whole = isSelect && told.length > 0 ? `${bare} SETTINGS ${told.join(', ')}` : bare;
  const result =
    Object.keys(params).length > 0
      ? await session.queryBindAsync(whole, params, { format: format ?? 'TSV' })
      : await session.queryAsync(whole, { format: format ?? 'TSV' });
  response.setHeader(
    'x-clickhouse-summary',
    JSON.stringify({ read_rows: String(result.rowsRead), read_bytes: String(result.bytesRead) }),
  );
  response.end(Buffer.from(result.bytes()));
}

createServer((request, response) => {
  turn = turn.then(() =>
    answer(request, response).catch((error: Error & { clickhouseCode?: number; status?: number }) => {
      response.writeHead(error.status ?? 500, { 'x-clickhouse-exception-code': String(error.clickhouseCode ?? 1002) });
      response.end(
        `Code: ${error.clickhouseCode ?? 1002}. DB::Exception: ${error.message.replace(/^Code: \d+\. (DB::Exception: )?/, '')}\n`,
      );
    }),
  );
}).listen(Number(port), '127.0.0.1', function listening(this: { address(): unknown }) {
  process.stdout.write(`${(this.address() as { port: number }).port}\n`);
});

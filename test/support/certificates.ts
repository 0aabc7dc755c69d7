import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { runProgram } from './command.ts';

export interface Certificates {
  /** PEM text. */
  readonly ca: string;
  readonly client: { readonly cert: string; readonly key: string };
  /** File with key and certificate of a server on 127.0.0.1. */
  readonly serverFile: string;
  readonly caFile: string;
}

/** An authority, and certificates from it, made by openssl in that folder. */
export async function makeCertificates(folder: string): Promise<Certificates> {
  const file = (name: string): string => join(folder, name);
  const openssl = async (...args: string[]): Promise<void> => {
    const { status, stderr } = await runProgram(['openssl', ...args]);
    if (status !== 0) throw new Error(`openssl ${args[0]}: ${stderr}`);
  };
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  await openssl(
    'req',
    '-x509',
    ...key,
    '-subj',
    '/CN=test authority',
    '-keyout',
    file('ca.key'),
    '-out',
    file('ca.pem'),
  );
  for (const name of ['server', 'client']) {
    await openssl('req', ...key, '-subj', `/CN=${name}`, '-keyout', file(`${name}.key`), '-out', file(`${name}.csr`));
    writeFileSync(file(`${name}.ext`), 'subjectAltName=IP:127.0.0.1\n');
    await openssl(
      ...[
        'x509',
        '-req',
        '-in',
        file(`${name}.csr`),
        '-CA',
        file('ca.pem'),
        '-CAkey',
        file('ca.key'),
        '-CAcreateserial',
      ],
      ...['-extfile', file(`${name}.ext`), '-days', '2', '-out', file(`${name}.pem`)],
    );
  }
  const read = (name: string): string => readFileSync(file(name), 'utf8');
  writeFileSync(file('server-both.pem'), read('server.key') + read('server.pem'));
  return {
    ca: read('ca.pem'),
    client: { cert: read('client.pem'), key: read('client.key') },
    serverFile: file('server-both.pem'),
    caFile: file('ca.pem'),
  };
}

import { randomUUID } from 'node:crypto';
import type { Session } from 'chdb';
import { SondeError } from '../../model/errors.ts';

/**
 * What a statement wrote before it failed stays in the connection's buffer, and a later answer begins with it: other people's rows, or a text that is no JSON.
 * So a connection on which a statement failed is emptied before it answers again.
 */
export function createCleanAnswers(where: string) {
  const unclean = new WeakSet<Session>();

  async function empty(session: Session): Promise<void> {
    const mark = randomUUID();
    // The leftovers come with the first or the second answer. Two clean ones in a row show that they are gone.
    for (let tries = 0, clean = 0; tries < 6; tries++) {
      const answer = await session.queryAsync(`SELECT '${mark}'`, { format: 'TSVRaw' });
      const bytes = answer.bytes();
      clean = bytes.length === mark.length + 1 && Buffer.from(bytes).toString() === `${mark}\n` ? clean + 1 : 0;
      if (clean === 2) {
        unclean.delete(session);
        return;
      }
    }
    throw new SondeError('STORE_QUERY_FAILED', {
      where,
      why: 'the connection still holds rows of a statement that failed',
    });
  }

  return async function answer<T>(session: Session, ask: () => Promise<T>): Promise<T> {
    if (unclean.has(session)) await empty(session);
    try {
      return await ask();
    } catch (error) {
      unclean.add(session);
      // At once, since the leftovers take memory. If it fails, the next statement tries again and is not asked before.
      await empty(session).catch(() => {});
      throw error;
    }
  };
}

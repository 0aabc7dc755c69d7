import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createReconnecting } from '../../src/link/reconnecting.ts';
import { backoffMs } from '../../src/model/backoff.ts';
import { SondeError } from '../../src/model/errors.ts';

const BACKOFF = { leastMs: 100, mostMs: 8000 };

/** Settled by hand. */
interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: unknown): void;
}

interface FakeLink {
  readonly number: number;
  isOpen: boolean;
  reason: SondeError | undefined;
  readonly setUp: Deferred<void>;
  /** As when the peer ends it. */
  end(why: string): void;
  close(reason?: SondeError): void;
}

/** A peer and a clock that do what the test says, and nothing by themselves. */
function createWorld() {
  let clock = 0;
  const timers = new Set<{ readonly at: number; work(): void }>();
  const connects: Deferred<number>[] = [];
  const links: FakeLink[] = [];
  const discarded: number[] = [];
  const log: string[] = [];
  const listeners: { up?: () => void; down?: () => void; trouble?: () => void } = {};

  const reconnecting = createReconnecting<number, FakeLink>(
    { where: 'peer', backoff: BACKOFF, connectMs: 3000, readyMs: 20_000 },
    {
      random: () => 0.5,
      after(ms, work) {
        const timer = { at: clock + ms, work };
        timers.add(timer);
        return () => timers.delete(timer);
      },
      connect() {
        const one = Promise.withResolvers<number>();
        connects.push(one);
        return one.promise;
      },
      discard: (number) => discarded.push(number),
      converse(number, closed) {
        const close = (reason = new SondeError('OVS_UNREACHABLE', { where: 'peer', why: 'closed' })): void => {
          if (!link.isOpen) return;
          link.isOpen = false;
          link.reason = reason;
          // As the real ones: what waits for an answer hears of the end.
          link.setUp.reject(reason);
          closed(reason);
        };
        const link: FakeLink = {
          number,
          isOpen: true,
          reason: undefined,
          setUp: Promise.withResolvers<void>(),
          end: (why) => close(new SondeError('OVS_UNREACHABLE', { where: 'peer', why })),
          close,
        };
        link.setUp.promise.catch(() => {});
        links.push(link);
        return link;
      },
      setUp: (link) => link.setUp.promise,
      up() {
        log.push('up');
        listeners.up?.();
      },
      down({ details }) {
        log.push(`down: ${details.why}`);
        listeners.down?.();
      },
      trouble({ details }) {
        log.push(`trouble: ${details.why}`);
        listeners.trouble?.();
      },
    },
  );

  const settle = async (): Promise<void> => {
    for (let i = 0; i < 10; i++) await Promise.resolve();
  };
  return {
    reconnecting,
    connects,
    links,
    discarded,
    log,
    listeners,
    timers,
    settle,
    /** Milliseconds until the next timer. */
    next: () => Math.min(...[...timers].map(({ at }) => at)) - clock,
    async pass(ms: number) {
      const until = clock + ms;
      for (;;) {
        const [first] = [...timers].filter(({ at }) => at <= until).toSorted((a, b) => a.at - b.at);
        if (first === undefined) break;
        clock = first.at;
        timers.delete(first);
        first.work();
        await settle();
      }
      clock = until;
    },
    async connected() {
      connects.at(-1)!.resolve(connects.length);
      await settle();
      return links.at(-1)!;
    },
    async refused(why: string) {
      connects.at(-1)!.reject(new Error(why));
      await settle();
    },
    async ready() {
      links.at(-1)!.setUp.resolve();
      await settle();
    },
  };
}

describe('reconnecting', () => {
  it('is inert until it is started, connects once however often, and is up when the conversation is set up', async () => {
    const world = createWorld();
    expect(world.connects).toHaveLength(0);
    world.reconnecting.start();
    world.reconnecting.start();
    expect(world.connects).toHaveLength(1);
    const link = await world.connected();
    world.reconnecting.start();
    expect(world.reconnecting).toMatchObject({ isUp: false, link });
    expect(world.log).toEqual([]);
    await world.ready();
    world.reconnecting.start();
    expect(world.log).toEqual(['up']);
    expect(world.reconnecting).toMatchObject({ isUp: true, link, counters: { connects: 1, failures: 0 } });
    expect(world.timers.size).toBe(0);
    expect(world.connects).toHaveLength(1);
  });

  it('waits longer after each failure, and as at first after a success', async () => {
    const world = createWorld();
    world.reconnecting.start();
    for (let failures = 1; failures <= 9; failures++) {
      await world.refused('nobody listens');
      expect(world.next()).toBe(backoffMs(BACKOFF, failures, 0.5));
      expect(world.timers.size).toBe(1);
      await world.pass(world.next() - 1);
      expect(world.connects).toHaveLength(failures);
      await world.pass(1);
      expect(world.connects).toHaveLength(failures + 1);
    }
    expect(world.log).toEqual(Array.from({ length: 9 }, () => 'trouble: nobody listens'));
    await world.connected();
    await world.ready();
    world.links.at(-1)!.end('it closed the connection');
    expect(world.log.slice(9)).toEqual(['up', 'down: it closed the connection']);
    expect(world.next()).toBe(backoffMs(BACKOFF, 1, 0.5));
    expect(world.reconnecting.counters).toEqual({ connects: 1, disconnects: 1, failures: 10 });
    world.reconnecting.stop();
    world.reconnecting.start();
    await world.refused('nobody listens');
    expect(world.next()).toBe(backoffMs(BACKOFF, 1, 0.5));
  });

  it('gives up a connection that does not come about, and wants it no more when it comes', async () => {
    const world = createWorld();
    world.reconnecting.start();
    await world.pass(3000);
    expect(world.log).toEqual(['trouble: no connection within 3 s']);
    await world.connected();
    expect(world.discarded).toEqual([1]);
    expect(world.links).toHaveLength(0);
    await world.pass(backoffMs(BACKOFF, 1, 0.5));
    expect(world.connects).toHaveLength(2);
    await world.pass(3000);
    world.connects[1]!.reject(new Error('too late'));
    await world.settle();
    expect(world.log).toHaveLength(2);
  });

  it('gives up a conversation that is refused, ends, or does not get ready', async () => {
    const world = createWorld();
    world.reconnecting.start();
    (await world.connected()).setUp.reject(new Error('it speaks another version'));
    await world.settle();
    await world.pass(world.next());
    (await world.connected()).end('it closed the connection');
    await world.settle();
    await world.pass(world.next());
    await world.connected();
    await world.pass(20_000);
    expect(world.log).toEqual([
      'trouble: it speaks another version',
      'trouble: it closed the connection',
      'trouble: it was not ready within 20 s',
    ]);
    expect(world.links.map(({ isOpen }) => isOpen)).toEqual([false, false, false]);
    expect(world.reconnecting.counters).toEqual({ connects: 0, disconnects: 0, failures: 3 });
    expect(world.reconnecting.link).toBeUndefined();
  });

  it('takes a conversation that ends while it begins for one that ended', async () => {
    const ended = new SondeError('OVS_UNREACHABLE', { where: 'peer', why: 'at once' });
    const log: string[] = [];
    const reconnecting = createReconnecting(
      { where: 'peer', backoff: BACKOFF, connectMs: 1000, readyMs: 1000 },
      {
        connect: async () => 1,
        discard() {},
        converse(_, closed) {
          closed(ended);
          return { close() {} };
        },
        setUp: async () => {},
        up: () => log.push('up'),
        down: () => log.push('down'),
        trouble: () => log.push('trouble'),
        after(ms) {
          log.push(`after ${ms}`);
          return () => log.push(`cancel ${ms}`);
        },
        random: () => 0,
      },
    );
    reconnecting.start();
    await new Promise((resolve) => setTimeout(resolve, 1));
    reconnecting.stop();
    expect(log).toEqual(['after 1000', 'cancel 1000', 'after 50', 'trouble', 'cancel 50']);
  });

  it.each(['connecting', 'setting up', 'up', 'waiting'])(
    'stops while it is %s, and leaves nothing behind',
    async (when) => {
      const world = createWorld();
      world.reconnecting.start();
      if (when === 'setting up' || when === 'up') await world.connected();
      if (when === 'up') await world.ready();
      if (when === 'waiting') await world.refused('nobody listens');
      const before = world.log.length;
      world.reconnecting.stop();
      world.reconnecting.stop();
      await world.settle();
      expect(world.log.slice(before)).toEqual(when === 'up' ? ['down: the connection was closed from here'] : []);
      expect(world.timers.size).toBe(0);
      expect(world.links.every(({ isOpen }) => !isOpen)).toBe(true);
      world.connects[0]!.resolve(1);
      await world.pass(60_000);
      expect(world.connects).toHaveLength(1);
      expect(world.discarded).toEqual(when === 'connecting' ? [1] : []);
      expect(world.reconnecting).toMatchObject({ isUp: false, link: undefined });
    },
  );

  it('may be stopped and started by whoever hears of a change', async () => {
    const world = createWorld();
    const again = () => {
      world.reconnecting.stop();
      world.reconnecting.start();
    };
    world.listeners.trouble = again;
    world.reconnecting.start();
    await world.refused('nobody listens');
    expect(world.connects).toHaveLength(2);
    expect(world.timers.size).toBe(1);
    world.listeners.up = () => {
      delete world.listeners.up;
      again();
    };
    await world.connected();
    await world.ready();
    await world.connected();
    await world.ready();
    world.listeners.down = () => world.reconnecting.stop();
    world.links.at(-1)!.end('it closed the connection');
    await world.pass(60_000);
    expect(world.connects).toHaveLength(3);
    expect(world.timers.size).toBe(0);
    expect(world.links.every(({ isOpen }) => !isOpen)).toBe(true);
  });

  it('keeps one conversation and one timer at most, whatever happens in whatever order', async () => {
    const step = fc.oneof(
      fc.constantFrom('start', 'start', 'stop', 'close', 'go on'),
      fc.constant('go on'),
      // Of the newest connection or conversation, or of one before it.
      fc.tuple(
        fc.constantFrom('connected', 'connected', 'connected', 'refused', 'ready', 'ready', 'ready', 'unready', 'end'),
        fc.constantFrom(0, 0, 0, 1),
      ),
      fc.constantFrom(1, 100, 100, 3000, 20_000),
    );
    // Without a pause, things happen between two microtasks.
    const paused = fc.tuple(step, fc.boolean());
    let ups = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(paused, { maxLength: 60, size: 'max' }), async (steps) => {
        const world = createWorld();
        let isRunning = true;
        world.reconnecting.start();
        for (const [one, isPaused] of steps) {
          if (one === 'start') {
            isRunning = true;
            world.reconnecting.start();
          } else if (one === 'stop') {
            isRunning = false;
            world.reconnecting.stop();
          } else if (one === 'close') world.reconnecting.link?.close();
          else if (one === 'go on') {
            await world.pass(100);
            world.connects.at(-1)?.resolve(0);
            await world.settle();
            world.links.at(-1)?.setUp.resolve();
          } else if (typeof one === 'number') await world.pass(one);
          else {
            const [what, index] = one;
            const connect = world.connects.at(-1 - index);
            const link = world.links.at(-1 - index);
            if (what === 'connected') connect?.resolve(index);
            else if (what === 'refused') connect?.reject(new Error('refused'));
            else if (what === 'ready') link?.setUp.resolve();
            else if (what === 'unready') link?.setUp.reject(new Error('unready'));
            else link?.end('ended');
          }
          if (isPaused) await world.settle();
        }
        await world.settle();
        const open = world.links.filter(({ isOpen }) => isOpen);
        expect(open.length).toBeLessThanOrEqual(1);
        expect(world.reconnecting.link).toBe(open[0]);
        expect(world.timers.size).toBeLessThanOrEqual(1);
        if (!isRunning) expect([open.length, world.timers.size]).toEqual([0, 0]);
        else if (!world.reconnecting.isUp) expect(world.timers.size).toBe(1);
        // Up and down take turns, and what is up is told so.
        const changes = world.log.filter((line) => !line.startsWith('trouble')).map((line) => line.split(':')[0]);
        expect(changes).toEqual(changes.map((_, i) => (i % 2 === 0 ? 'up' : 'down')));
        expect(world.reconnecting.isUp).toBe(changes.length % 2 === 1);
        const { connects, disconnects } = world.reconnecting.counters;
        expect([connects, disconnects]).toEqual([Math.ceil(changes.length / 2), Math.floor(changes.length / 2)]);
        ups += connects;
        world.reconnecting.stop();
        await world.settle();
        expect([world.timers.size, world.links.filter(({ isOpen }) => isOpen).length]).toEqual([0, 0]);
      }),
      { numRuns: 1000 },
    );
    expect(ups).toBeGreaterThan(500);
  });
});

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createRestoreWait, RESTORE_WAIT } from '../../src/control/restore-wait.ts';
import { SondeError } from '../../src/model/errors.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

/** A database with one key, which changes as OVSDB's mutations do. */
function setUp(value?: string, datapathType = 'system') {
  const at = {
    value,
    up: true,
    refuse: 0,
    lost: (): void => {},
    cameUp: (): void => {},
    troubles: [] as string[],
  };
  const wait = createRestoreWait(
    { mostMs: 10_000 },
    {
      bridge: {
        get up() {
          return at.up;
        },
        datapathType: () => datapathType,
        restoreWait: () => at.value,
        async changeRestoreWait(change, wanted) {
          if (at.refuse-- > 0) throw new SondeError('OVS_UNREACHABLE', { where: 'test', why: 'away' });
          if (change === 'insert') at.value ??= wanted;
          else if (at.value === wanted) at.value = undefined;
        },
        onUp: (listener) => {
          at.cameUp = listener;
        },
      },
      onSwitchLost: (listener) => {
        at.lost = listener;
      },
      onTrouble: (error) => at.troubles.push(error.code),
    },
  );
  wait.start();
  return { at, wait, settled: () => vi.advanceTimersByTimeAsync(0) };
}

describe('flow-restore-wait', () => {
  it('stands from when the switch is lost until the bridge is in line again', async () => {
    const { at, wait, settled } = setUp();
    wait.inLine();
    at.lost();
    await settled();
    expect(at.value).toBe(RESTORE_WAIT);
    wait.inLine();
    await settled();
    expect(at.value).toBeUndefined();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(at.troubles).toEqual([]);
  });

  it('is not set where there is nothing to keep: before the first time in line, in userspace, without the database', async () => {
    const { at, settled } = setUp();
    at.lost();
    await settled();
    expect(at.value).toBeUndefined();
    const userspace = setUp(undefined, 'netdev');
    userspace.wait.inLine();
    userspace.at.lost();
    const away = setUp();
    away.wait.inLine();
    away.at.up = false;
    away.at.lost();
    await settled();
    expect([userspace.at.value, away.at.value]).toEqual([undefined, undefined]);
  });

  it('never stands longer than it may, and says so', async () => {
    const { at, wait } = setUp();
    wait.inLine();
    at.lost();
    at.lost();
    await vi.advanceTimersByTimeAsync(9_999);
    expect(at.value).toBe(RESTORE_WAIT);
    await vi.advanceTimersByTimeAsync(1);
    expect(at.value).toBeUndefined();
    expect(at.troubles).toEqual(['SWITCH_STAYS_AWAY']);
    // Attempts to connect go on failing.
    at.lost();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(at.value).toBeUndefined();
  });

  it("leaves another's key alone, whether it was there before or took the place of ours", async () => {
    const { at, wait, settled } = setUp('true');
    wait.inLine();
    at.lost();
    wait.inLine();
    await settled();
    expect(at.value).toBe('true');
    at.value = undefined;
    at.lost();
    await settled();
    at.value = 'true';
    wait.inLine();
    await wait.stop();
    expect(at.value).toBe('true');
  });

  it('goes with the agent, and what a killed one left goes when the next one starts', async () => {
    const { at, wait, settled } = setUp(RESTORE_WAIT);
    await settled();
    expect(at.value).toBeUndefined();
    wait.inLine();
    at.lost();
    await wait.stop();
    expect(at.value).toBeUndefined();
  });

  it('is taken away as soon as the database takes it', async () => {
    const { at, wait } = setUp();
    wait.inLine();
    at.lost();
    await vi.advanceTimersByTimeAsync(0);
    at.refuse = 2;
    wait.inLine();
    await vi.advanceTimersByTimeAsync(1500);
    expect(at.value).toBe(RESTORE_WAIT);
    await vi.advanceTimersByTimeAsync(1000);
    expect(at.value).toBeUndefined();
    at.value = RESTORE_WAIT;
    at.cameUp();
    await vi.advanceTimersByTimeAsync(0);
    expect(at.value).toBeUndefined();
  });
});

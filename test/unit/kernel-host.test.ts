import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { moduleOrder, publish } from '../../src/lab/kernel-host/image.ts';
import { createKernelHost } from '../../src/lab/kernel-host/kernel-host.ts';

it('orders modules so that each comes after what it needs, once', () => {
  // As depmod(8) writes it.
  const index = [
    'kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko',
    'kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko',
    'kernel/drivers/virtio/virtio_ring.ko:',
    'kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko',
    'kernel/net/other.ko:',
  ].join('\n');
  // What is not in the index is built into the kernel.
  expect(moduleOrder(index, ['virtio_pci', 'virtio_blk', 'ext4'])).toEqual([
    'kernel/drivers/virtio/virtio_ring.ko',
    'kernel/drivers/virtio/virtio.ko',
    'kernel/drivers/virtio/virtio_pci.ko',
    'kernel/drivers/block/virtio_blk.ko',
  ]);
});

it('leaves what another has put there first, and never half of it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sonde-publish-'));
  try {
    const place = join(folder, 'image');
    for (const maker of ['a', 'b']) {
      mkdirSync(join(folder, maker));
      writeFileSync(join(folder, maker, `by-${maker}`), '');
    }
    await publish(join(folder, 'a'), place);
    await publish(join(folder, 'b'), place);
    expect(readdirSync(place)).toEqual(['by-a']);
    await expect(publish(join(folder, 'none'), place)).rejects.toMatchObject({ code: 'ENOENT' });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it('says that a guest is not up, and what name it may have', async () => {
  const host = createKernelHost({ instance: 'nobody', runDir: '/nonexistent/kernel-host' });
  await expect(host.exec(['true'])).rejects.toMatchObject({ code: 'LAB_KERNEL_HOST_FAILED' });
  expect(host.pid()).toBeUndefined();
  await host.stop();
  expect(() => createKernelHost({ instance: 'No Name' })).toThrow(/instance is "No Name"/);
});

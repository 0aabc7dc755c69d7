/**
 * What runs as shell inside the guest: the first program of its initial RAM disk, and that of its root file system. There is no systemd in there, so
 * that nothing but ours runs, and a boot takes seconds.
 */

/** Printed on the console when the command channel listens. */
export const READY_LINE = 'SONDE GUEST READY';
/** Where the checkout is mounted, and its packages below it. */
export const CHECKOUT = '/opt/sonde';
/** Labels of the disks that the root disk finds the others by. */
export const DISK_LABELS = { root: 'sonde-root', sources: 'sonde-src', modules: 'sonde-mod' } as const;

/** Modules that must be there before the root disk can be mounted; their dependencies are found in modules.dep. */
export const BOOT_MODULES = ['virtio_pci', 'virtio_blk'] as const;

/** Folders and files below `kernel/` of the module tree that a guest can use: drivers of real hardware are most of the package. */
export const KEPT_MODULES = [
  'net',
  'lib',
  'crypto',
  'arch',
  'fs/overlayfs',
  'drivers/virtio',
  'drivers/block/virtio_blk.ko',
  'drivers/char/virtio_console.ko',
  'drivers/char/hw_random',
  'drivers/net/veth.ko',
  'drivers/net/geneve.ko',
  'drivers/net/vxlan',
  'drivers/net/tun.ko',
  'drivers/net/tap.ko',
  'drivers/net/dummy.ko',
  'drivers/net/ifb.ko',
  'drivers/net/virtio_net.ko',
  'drivers/net/net_failover.ko',
  'net/core/failover.ko',
] as const;

/** `/init` of the initial RAM disk. @param insmods module files in the order of their dependencies */
export function initramfsInit(insmods: readonly string[]): string {
  return `#!/bin/busybox sh
/bin/busybox mount -t proc p /proc
/bin/busybox mount -t sysfs s /sys
/bin/busybox mount -t devtmpfs d /dev
${insmods.map((file) => `/bin/busybox insmod /lib/modules/${file} 2>/dev/null`).join('\n')}
n=0
while [ ! -b /dev/vda ] && [ $n -lt 200 ]; do /bin/busybox sleep 0.05; n=$((n+1)); done
/bin/busybox mount -t ext4 /dev/vda /root || /bin/busybox poweroff -f
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/guest-init
`;
}

/** Process 1 of the guest. Its network is slirp's, restricted: nothing but the loopback port of the command channel leads in, and nothing out. */
export const GUEST_INIT = `#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs tmp /tmp
chmod 1777 /tmp
mkdir -p /run/netns /run/openvswitch /run/lock
ln -sf /proc/self/fd /dev/fd
# Debian's 208 KiB are less than a burst of IPFIX.
echo 16777216 > /proc/sys/net/core/rmem_max
hostname "$(sed -n 's/.*sonde.instance=\\([^ ]*\\).*/\\1/p' /proc/cmdline)"
ip link set lo up
modprobe virtio_rng
modprobe virtio_net
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
for module in openvswitch vport-geneve nf_conntrack nf_conntrack_netlink veth tun; do modprobe $module; done
for disk in ${DISK_LABELS.sources}:${CHECKOUT} ${DISK_LABELS.modules}:${CHECKOUT}/node_modules; do
  [ -n "$(blkid -L "\${disk%%:*}")" ] && mount -o noatime "LABEL=\${disk%%:*}" "\${disk#*:}"
done
dropbear -E -s -p 22
echo "${READY_LINE} $(cut -d' ' -f1 /proc/uptime)"
while :; do sleep 3600 & wait $!; done
`;

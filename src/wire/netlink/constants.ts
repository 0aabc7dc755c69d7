/** Numbers of netlink and nfnetlink: include/uapi/linux/netlink.h, netfilter/nfnetlink.h, netfilter/nfnetlink_conntrack.h. */

/** Octets of struct nlmsghdr, of struct nfgenmsg, and of the header of an attribute. */
export const MESSAGE_HEADER = 16;
export const FAMILY_HEADER = 4;
export const ATTRIBUTE_HEADER = 4;

export const MESSAGES = { error: 2, done: 3, overrun: 4 } as const;

/** Flags of a message. `create` and `exclusive` also tell the event NEW from UPDATE. */
export const FLAGS = {
  request: 0x01,
  multi: 0x02,
  ack: 0x04,
  /** The table changed in a way that the dump may have missed. */
  interrupted: 0x10,
  dump: 0x300,
  exclusive: 0x200,
  create: 0x400,
} as const;

/** Subsystem NFNL_SUBSYS_CTNETLINK (1) in the upper octet. */
export const CONNTRACK_MESSAGES = { new: 0x100, get: 0x101, delete: 0x102 } as const;

/** AF_INET and AF_INET6, by version of IP. */
export const FAMILIES = { 4: 2, 6: 10 } as const;

/** Bits of an attribute's type that are no part of it: NLA_F_NESTED, NLA_F_NET_BYTEORDER. */
export const TYPE_MASK = 0x3fff;
export const NESTED = 0x8000;

/** Headers of netlink are in the byte order of the machine; what ctnetlink's attributes hold is in network order. */
export const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

export const align = (length: number): number => (length + 3) & ~3;

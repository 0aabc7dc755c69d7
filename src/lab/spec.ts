import { createHash } from 'node:crypto';
import { isIPv4 } from 'node:net';
import { join } from 'node:path';
import { v5 as uuidV5 } from 'uuid';
import { SondeError } from '../model/errors.ts';

/** A VM as its user describes it. What is left out is derived from the instance's and the VM's name, always to the same value. */
export interface VmSpec {
  /** Unique in the instance; 1 to 32 of [a-z0-9-]. */
  readonly name: string;
  /** Address with prefix length, `a.b.c.d/len`. */
  readonly ip: string;
  /** Default gateway. None: the VM reaches its own prefix only. */
  readonly gateway?: string;
  readonly mac?: string;
  /** `external_ids:iface-id` of the OVS interface. */
  readonly ifaceId?: string;
  /** `external_ids:vm-id` of the OVS interface. */
  readonly vmId?: string;
  /** Bytes; default 1500. */
  readonly mtu?: number;
}

export interface HostSpec {
  /** Unique in the instance; 1 to 32 of [a-z0-9-]. */
  readonly name: string;
  readonly vms: readonly VmSpec[];
}

/** Open vSwitch's own words: `netdev` forwards in ovs-vswitchd itself, `system` in a module of the kernel. */
export type DatapathType = 'netdev' | 'system';

export interface LabSpec {
  /** Name of the instance; 1 to 24 of [a-z0-9-]. Everything that the lab creates carries it. Default `demo`. */
  readonly instance?: string;
  /** Folder that holds a run directory for each instance. Default /run/sonde-lab. */
  readonly stateDir?: string;
  /** 1 to 200 hosts. The n-th (from 1) has the underlay address 172.31.0.n/16. */
  readonly hosts: readonly HostSpec[];
  /** Bytes; default 1650, which leaves room for Geneve and its options around a 1500-byte guest packet. */
  readonly underlayMtu?: number;
  /** Whether the lab plugs the Geneve port `gnv0` (remote_ip=flow, key=flow) in br-int. Default true. */
  readonly tunnel?: boolean;
  /** What forwards on all bridges. Default `netdev`, which needs nothing of the machine's kernel. */
  readonly datapath?: DatapathType;
  /** Factor on all times that the lab waits, for machines that are slow because they are emulated. 1 to 100, default 1. */
  readonly patience?: number;
}

/** A VM with nothing left open. */
export type LabVm = Required<Omit<VmSpec, 'gateway'>> & {
  readonly gateway: string | undefined;
  readonly host: string;
  readonly netns: string;
  /** Its port on br-int. */
  readonly tap: string;
};

export interface ResolvedHost {
  readonly name: string;
  readonly netns: string;
  readonly runDir: string;
  readonly encapIp: string;
  /** MAC of br-phy's local port, which is the tunnel's source. */
  readonly encapMac: string;
  readonly systemId: string;
  readonly vms: readonly LabVm[];
}

export interface ResolvedLab {
  readonly instance: string;
  readonly runDir: string;
  readonly fabricNetns: string;
  readonly underlayMtu: number;
  readonly tunnel: boolean;
  readonly datapath: DatapathType;
  readonly patience: number;
  readonly hosts: readonly ResolvedHost[];
}

export const DEFAULT_INSTANCE = 'demo';
export const DEFAULT_STATE_DIR = '/run/sonde-lab';
export const UNDERLAY_PREFIX_LENGTH = 16;
/** As people know them. */
export const DATAPATH_NAMES: Readonly<Record<DatapathType, string>> = {
  netdev: 'userspace datapath',
  system: 'kernel datapath',
};

const FABRIC = 'fabric';
const NAME = /^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$/;
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const UNICAST_MAC = /^[0-9a-f][02468ace](?::[0-9a-f]{2}){5}$/;
/** Name space (RFC 9562, section 6.6) of the ids that a lab derives from names. */
const UUID_NAMESPACE = '6f1d5c5e-3a54-5f0b-9c1e-5b1a7c0d2e4f';
/** Longest path of a Unix socket (sun_path, unix(7)), less its final zero. */
const MAX_SOCKET_PATH = 107;

/**
 * Prefix of all namespaces of an instance. The dot ends the instance's name without doubt, since no name may hold one:
 * `demo` and `demo-2` never catch each other's.
 */
export function netnsPrefix(instance: string): string {
  return `sonde-${instance}.`;
}

/** Run directory of an instance. */
export function instanceRunDir(instance: string, stateDir: string = DEFAULT_STATE_DIR): string {
  return join(stateDir, instance);
}

/** @throws SondeError LAB_SPEC_INVALID */
export function checkInstanceName(instance: string): string {
  return checkName('instance', instance, 24);
}

/** UUID that always comes out the same for the same instance, kind and name. */
export function derivedUuid(instance: string, kind: 'vm' | 'iface' | 'host', name: string): string {
  return uuidV5(`${instance}/${kind}/${name}`, UUID_NAMESPACE);
}

/** Locally administered unicast MAC that always comes out the same for the same instance, kind and name. */
export function derivedMac(instance: string, kind: 'vm' | 'host', name: string): string {
  const digest = createHash('sha256').update(`${instance}/${kind}/${name}`).digest('hex');
  return `02:${digest.slice(0, 10).replace(/..(?!$)/g, '$&:')}`;
}

/** A plain spec for tests: hosts host-1.., VMs vm-<host>-<n> with addresses 10.0.<host>.<n>/16, all in one prefix. */
export function labSpec(options: {
  readonly instance: string;
  readonly hosts?: number;
  readonly vmsPerHost?: number;
  readonly tunnel?: boolean;
  readonly stateDir?: string;
}): LabSpec {
  const { hosts = 2, vmsPerHost = 3, ...rest } = options;
  return {
    ...rest,
    hosts: Array.from({ length: hosts }, (_, h) => ({
      name: `host-${h + 1}`,
      vms: Array.from({ length: vmsPerHost }, (_, v) => ({
        name: `vm-${h + 1}-${v + 1}`,
        ip: `10.0.${h + 1}.${v + 1}/16`,
      })),
    })),
  };
}

/**
 * Checks a spec and fills in what it leaves open. Pure.
 * @throws SondeError LAB_SPEC_INVALID with the first field that is wrong.
 */
export function resolveSpec(spec: LabSpec): ResolvedLab {
  const instance = checkInstanceName(spec.instance ?? DEFAULT_INSTANCE);
  const runDir = instanceRunDir(instance, spec.stateDir);
  if (spec.hosts.length < 1 || spec.hosts.length > 200)
    bad('hosts', `a list of ${spec.hosts.length}`, '1 to 200 hosts');
  const underlayMtu = integer('underlayMtu', spec.underlayMtu ?? 1650, 576, 65_000);
  const datapath = spec.datapath ?? 'netdev';
  if (!Object.hasOwn(DATAPATH_NAMES, datapath))
    bad('datapath', String(datapath), Object.keys(DATAPATH_NAMES).join(' or '));
  const patience = integer('patience', spec.patience ?? 1, 1, 100);
  const taken = new Map<string, string>([[FABRIC, "the fabric's own name"]]);
  const claim = (field: string, value: string): void => {
    const other = taken.get(value);
    if (other !== undefined) bad(field, value, `a value of its own: it is also ${other}`);
    taken.set(value, field);
  };

  const hosts = spec.hosts.map((host, index): ResolvedHost => {
    const at = `hosts[${index}]`;
    claim(`${at}.name`, checkName(`${at}.name`, host.name, 32));
    const netns = netnsPrefix(instance) + host.name;
    const hostDir = join(runDir, host.name);
    if (join(hostDir, 'ovs-vswitchd.4194304.ctl').length > MAX_SOCKET_PATH) {
      bad('stateDir', String(spec.stateDir), `a path so short that ${hostDir} can hold Unix sockets`);
    }
    const vms = host.vms.map((vm, v): LabVm => {
      const resolved = resolveVm(instance, `${at}.vms[${v}]`, host.name, vm);
      claim(`${at}.vms[${v}].name`, resolved.name);
      claim(`${at}.vms[${v}].ifaceId`, resolved.ifaceId);
      claim(`${at} port ${resolved.tap}`, `${host.name} ${resolved.tap}`);
      return resolved;
    });
    return {
      name: host.name,
      netns,
      runDir: hostDir,
      encapIp: `172.31.0.${index + 1}`,
      encapMac: derivedMac(instance, 'host', host.name),
      systemId: derivedUuid(instance, 'host', host.name),
      vms,
    };
  });
  return {
    instance,
    runDir,
    fabricNetns: netnsPrefix(instance) + FABRIC,
    underlayMtu,
    tunnel: spec.tunnel ?? true,
    datapath,
    patience,
    hosts,
  };
}

function resolveVm(instance: string, at: string, host: string, vm: VmSpec): LabVm {
  const name = checkName(`${at}.name`, vm.name, 32);
  const [address = '', length = ''] = vm.ip.split('/');
  if (!isIPv4(address) || !/^\d{1,2}$/.test(length) || Number(length) > 32) bad(`${at}.ip`, vm.ip, 'a.b.c.d/length');
  if (vm.gateway !== undefined && !isIPv4(vm.gateway)) bad(`${at}.gateway`, vm.gateway, 'an IPv4 address');
  const mac = (vm.mac ?? derivedMac(instance, 'vm', name)).toLowerCase();
  if (!UNICAST_MAC.test(mac)) bad(`${at}.mac`, mac, 'a unicast MAC address, six bytes with colons');
  const ifaceId = uuid(`${at}.ifaceId`, vm.ifaceId ?? derivedUuid(instance, 'iface', name));
  return {
    name,
    host,
    netns: `${netnsPrefix(instance)}${host}.${name}`,
    // Nova's naming where the readable one does not fit into the kernel's 15 characters.
    tap: name.length <= 11 ? `tap-${name}` : `tap${ifaceId.slice(0, 11)}`,
    mac,
    ip: vm.ip,
    gateway: vm.gateway,
    ifaceId,
    vmId: uuid(`${at}.vmId`, vm.vmId ?? derivedUuid(instance, 'vm', name)),
    mtu: integer(`${at}.mtu`, vm.mtu ?? 1500, 68, 65_000),
  };
}

function checkName(field: string, value: string, longest: number): string {
  if (value.length > longest || !NAME.test(value)) {
    bad(field, JSON.stringify(value), `1 to ${longest} of a-z, 0-9 and - (not at an end)`);
  }
  return value;
}

function uuid(field: string, value: string): string {
  if (!UUID.test(value)) bad(field, value, 'a UUID in lower case');
  return value;
}

function integer(field: string, value: number, least: number, most: number): number {
  if (!Number.isInteger(value) || value < least || value > most) bad(field, String(value), `${least} to ${most}`);
  return value;
}

function bad(field: string, value: string, expected: string): never {
  throw new SondeError('LAB_SPEC_INVALID', { field, value, expected });
}

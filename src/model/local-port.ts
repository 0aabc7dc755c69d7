/** A vNIC's port on the integration bridge of this host, as OVSDB knows it. */
export interface LocalPort {
  /** OpenFlow port number, 1..65279. */
  readonly ofport: number;
  /** Conntrack zone: the vNIC's number on this host, see ZONES. */
  readonly zone: number;
  /** external_ids:iface-id, which the hypervisor sets: the endpoint's name everywhere. */
  readonly ifaceId: string;
  /** Name of the interface on the host, as tap0. */
  readonly name: string;
  /** Number of its device on the host, which another device never gets while this boot lasts; undefined where it has none, as vhost-user. */
  readonly ifindex?: number;
  /** Its MTU on the host, octets; 0 while the switch does not say. */
  readonly mtu?: number;
  /** external_ids:attached-mac, 48 bits. */
  readonly mac?: number;
  /** external_ids:vm-id. */
  readonly vmUuid?: string;
  /** external_ids:sonde-vm-name or libvirt's name, where set. */
  readonly vmName?: string;
}

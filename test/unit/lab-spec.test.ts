import { describe, expect, it } from 'vitest';
import { createLab } from '../../src/lab/lab.ts';
import { type HostSpec, type LabSpec, labSpec, netnsPrefix, resolveSpec, type VmSpec } from '../../src/lab/spec.ts';

const vm = (more: Partial<VmSpec> = {}): VmSpec => ({ name: 'web-1', ip: '10.0.0.2/24', ...more });
const host = (name: string, ...vms: VmSpec[]): HostSpec => ({ name, vms });
const lab = (...hosts: HostSpec[]): LabSpec => ({ instance: 'demo', hosts });

describe('lab spec', () => {
  it('gives every namespace of an instance a prefix that no other instance shares', () => {
    const names = (spec: LabSpec): string[] => {
      const { fabricNetns, hosts } = resolveSpec(spec);
      return [fabricNetns, ...hosts.flatMap((one) => [one.netns, ...one.vms.map((each) => each.netns)])];
    };
    const demo = names(labSpec({ instance: 'demo' }));
    const other = names(labSpec({ instance: 'demo-2' }));
    expect(new Set([...demo, ...other]).size).toBe(18);
    expect(demo.every((name) => name.startsWith(netnsPrefix('demo')))).toBe(true);
    expect(other.some((name) => name.startsWith(netnsPrefix('demo')))).toBe(false);
    expect([...demo, ...other].every((name) => name.length < 250)).toBe(true);
  });

  it('derives ids that are the same every time, and differ between VMs and between instances', () => {
    const ids = (instance: string): string[] =>
      resolveSpec(labSpec({ instance })).hosts.flatMap((one) => [
        one.systemId,
        one.encapMac,
        ...one.vms.flatMap((each) => [each.mac, each.ifaceId, each.vmId]),
      ]);
    expect(ids('a')).toEqual(ids('a'));
    expect(new Set([...ids('a'), ...ids('b')]).size).toBe(2 * ids('a').length);
    for (const mac of ids('a').filter((id) => id.length === 17)) expect(mac).toMatch(/^02(:[0-9a-f]{2}){5}$/);
  });

  it('keeps what the caller gives', () => {
    const given = vm({
      mac: '02:AA:00:00:00:01',
      ifaceId: '00000000-0000-4000-8000-000000000001',
      gateway: '10.0.0.1',
      mtu: 1400,
    });
    expect(resolveSpec(lab(host('h', given))).hosts[0]?.vms[0]).toMatchObject({
      mac: '02:aa:00:00:00:01',
      ifaceId: given.ifaceId,
      gateway: '10.0.0.1',
      mtu: 1400,
      tap: 'tap-web-1',
    });
  });

  it("names a port as Nova does where the VM's name is too long for the kernel", () => {
    const [one] = resolveSpec(lab(host('h', vm({ name: 'a-name-of-some-length' })))).hosts;
    expect(one?.vms[0]?.tap).toBe(`tap${one?.vms[0]?.ifaceId.slice(0, 11)}`);
    expect(one?.vms[0]?.tap).toHaveLength(14);
  });

  it.each<[string, LabSpec, RegExp]>([
    ['an instance with a dot', { instance: 'a.b', hosts: [host('h')] }, /instance is "a\.b", expected 1 to 24 of a-z/],
    ['an instance that climbs out of its folder', { instance: '..', hosts: [host('h')] }, /instance/],
    ['an empty instance', { instance: '', hosts: [host('h')] }, /instance is ""/],
    ['no hosts', lab(), /hosts is a list of 0, expected 1 to 200/],
    ['two hosts of one name', lab(host('h'), host('h')), /hosts\[1\]\.name is h, .* also hosts\[0\]\.name/],
    ['a VM named as a host', lab(host('h', vm({ name: 'h' }))), /hosts\[0\]\.vms\[0\]\.name is h/],
    ['a host named as the fabric', lab(host('fabric')), /hosts\[0\]\.name is fabric/],
    ['one name on two hosts', lab(host('a', vm()), host('b', vm())), /hosts\[1\]\.vms\[0\]\.name is web-1/],
    [
      'an address without a length',
      lab(host('h', vm({ ip: '10.0.0.2' }))),
      /vms\[0\]\.ip is 10\.0\.0\.2, expected a\.b\.c\.d/,
    ],
    ['a length too long', lab(host('h', vm({ ip: '10.0.0.2/33' }))), /vms\[0\]\.ip/],
    ['a gateway that is none', lab(host('h', vm({ gateway: 'gw' }))), /vms\[0\]\.gateway is gw/],
    ['a multicast MAC', lab(host('h', vm({ mac: '01:00:5e:00:00:01' }))), /vms\[0\]\.mac .* unicast/],
    ['an iface-id that is none', lab(host('h', vm({ ifaceId: 'x' }))), /vms\[0\]\.ifaceId is x, expected a UUID/],
    ['an MTU too small', lab(host('h', vm({ mtu: 10 }))), /vms\[0\]\.mtu is 10/],
    [
      'a datapath that is none',
      { ...lab(host('h')), datapath: 'kernel' as 'system' },
      /datapath is kernel, .* netdev or system/,
    ],
    ['no patience at all', { ...lab(host('h')), patience: 0 }, /patience is 0, expected 1 to 100/],
    ['a path too long for sockets', { ...lab(host('h')), stateDir: `/tmp/${'x'.repeat(90)}` }, /stateDir/],
  ])('refuses %s', (_, spec, says) => {
    expect(() => createLab(spec)).toThrow(says);
    expect(() => createLab(spec)).toThrow(expect.objectContaining({ code: 'LAB_SPEC_INVALID' }));
  });
});

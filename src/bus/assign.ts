/**
 * Divides partitions evenly among the members of a group, and moves as few as that takes.
 * @param owners the present owner by partition; undefined: none.
 * @param members in the order in which they joined.
 * @returns the owner by partition; undefined everywhere when there are no members.
 */
export function assign<M>(owners: readonly (M | undefined)[], members: readonly M[]): (M | undefined)[] {
  const wanted: (M | undefined)[] = owners.map(() => undefined);
  if (members.length === 0) return wanted;
  const least = Math.floor(owners.length / members.length);
  let extra = owners.length % members.length;
  const held = new Map(members.map((member) => [member, 0]));
  // Keep: up to the least share, then one more for whoever has it, while there are such.
  for (const share of [least, least + 1]) {
    owners.forEach((owner, partition) => {
      if (owner === undefined || wanted[partition] !== undefined) return;
      const count = held.get(owner);
      if (count === undefined || count >= share || (share > least && extra === 0)) return;
      if (share > least) extra--;
      wanted[partition] = owner;
      held.set(owner, count + 1);
    });
  }
  wanted.forEach((owner, partition) => {
    if (owner !== undefined) return;
    const member =
      members.find((one) => (held.get(one) ?? 0) < least) ?? members.find((one) => held.get(one) === least);
    if (member === undefined) return;
    wanted[partition] = member;
    held.set(member, (held.get(member) ?? 0) + 1);
  });
  return wanted;
}

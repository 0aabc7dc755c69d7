import type { DatapathType, LabSpec } from '../../src/lab/spec.ts';

/** What the system tests' switches forward on, so that one source of them runs on both. Default: the userspace datapath. */
export const DATAPATH: DatapathType = process.env.SONDE_TEST_DATAPATH === 'system' ? 'system' : 'netdev';

/** Factor on what tests wait, for an emulated machine. */
export const PATIENCE = Number(process.env.SONDE_TEST_PATIENCE ?? 1);

/** A lab on that datapath. */
export const onDatapath = (spec: LabSpec): LabSpec => ({ datapath: DATAPATH, patience: PATIENCE, ...spec });

/**
 * The catalogue of every error a person can meet. `docs/errors.md` is generated from it, and a test holds the two equal.
 * `says` is one sentence with what, where and why; `{names}` in it are filled from the error's details. `do` says what to do next.
 * Codes are stable: programs match on them. Keep the table sorted by area, then code.
 */
export const ERRORS = {
  // --- Open vSwitch and its links
  OVS_UNREACHABLE: {
    status: 503,
    says: 'Open vSwitch does not answer at {where}: {why}.',
    do: 'Check that ovsdb-server and ovs-vswitchd run (systemctl status openvswitch-switch) and that this process may open the socket; the agent keeps trying.',
  },
  OVS_BRIDGE_MISSING: {
    status: 503,
    says: 'Open vSwitch at {where} has no bridge {bridge}; it has {bridges}.',
    do: 'Create it (ovs-vsctl add-br {bridge}) or name the right one with --bridge; the agent keeps trying.',
  },

  // --- The lab
  LAB_COMMAND_FAILED: {
    status: 500,
    says: 'The lab could not {what}: `{command}` failed: {why}.',
    do: 'Read the reason above; logs of Open vSwitch are in the run directory of the lab. `sonde lab down` removes what is there.',
  },
  LAB_NAME_IN_USE: {
    status: 409,
    says: 'A lab named {instance} is there already ({where}).',
    do: 'Take it down (sonde lab down {instance}) or choose another name.',
  },
  LAB_NOT_ROOT: {
    status: 403,
    says: 'The lab creates network namespaces, which needs root; this process runs as user {uid}.',
    do: 'Run the same command as root, for instance with sudo.',
  },
  LAB_NOT_UP: {
    status: 409,
    says: 'No lab named {instance} is up (looked in {where}).',
    do: 'Bring it up (sonde lab up {instance}), or name the right one and the right state directory.',
  },
  LAB_SPEC_INVALID: {
    status: 400,
    says: 'The lab cannot be built as described: {field} is {value}, expected {expected}.',
    do: 'Correct that field.',
  },
  LAB_TIMEOUT: {
    status: 504,
    says: 'The lab waited {seconds} s for `{command}` on {target}, which did not end.',
    do: 'Give it more time, or look at what it waits for.',
  },
  LAB_TOOL_MISSING: {
    status: 500,
    says: 'The lab needs {tool}, which is not on this machine.',
    do: 'Install it: apt-get install {package}.',
  },
  LAB_UNKNOWN_TARGET: {
    status: 404,
    says: 'Lab {instance} has no host or VM named {target}; it has {known}.',
    do: 'Name one of those.',
  },
} as const satisfies Record<string, { status: number; says: string; do: string }>;

export type ErrorCode = keyof typeof ERRORS;

/** An error of the catalogue, with the details that fill its sentence. */
export class SondeError extends Error {
  override readonly name = 'SondeError';
  readonly code: ErrorCode;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, details: Readonly<Record<string, unknown>> = {}, options?: ErrorOptions) {
    super(fill(ERRORS[code].says, details), options);
    this.code = code;
    this.details = details;
  }

  /** What a person should do next. */
  get action(): string {
    return fill(ERRORS[this.code].do, this.details);
  }

  /** HTTP status under which the API reports this error. */
  get status(): number {
    return ERRORS[this.code].status;
  }
}

function fill(template: string, details: Readonly<Record<string, unknown>>): string {
  return template.replace(/\{(\w+)\}/g, (whole, name: string) => (name in details ? String(details[name]) : whole));
}

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

/**
 * The catalogue of every error a person can meet. `docs/errors.md` is generated from it, and a test holds the two equal.
 * `says` is one sentence with what, where and why; `{names}` in it are filled from the error's details. `do` says what to do next.
 * Codes are stable: programs match on them. Keep the table sorted by area, then code.
 */
export const ERRORS = {
  // --- The API and its clients
  API_ANSWER_INVALID: {
    status: 502,
    says: 'What answers at {where} is no Sonde server of this version: {why}.',
    do: 'Check the address (--server, SONDE_SERVER) and compare the versions of client and server.',
  },
  API_BODY_TOO_LARGE: {
    status: 413,
    says: 'The body is larger than {limit} octets, the most that {path} takes.',
    do: 'Send it in several requests.',
  },
  API_INTERNAL: {
    status: 500,
    says: 'The server failed at {what}; its log has the reason under request {request}.',
    do: 'Try again; if it stays, look in the log for that request and report it.',
  },
  API_ORIGIN_REFUSED: {
    status: 403,
    says: 'The request comes from a page of {origin}, or names this server {host}, and a server without a token answers to its own machine only.',
    do: 'Name the server by its loopback address, or give it a token.',
  },
  API_REQUEST_INVALID: {
    status: 400,
    says: 'The request is not understood: {field} in the {part} is {found}, expected {expected}.',
    do: 'Correct that; /docs describes what each route takes.',
  },
  API_ROUTE_UNKNOWN: {
    status: 404,
    says: 'There is no {method} {path}.',
    do: '{hint} /docs describes all routes.',
  },
  API_UNAUTHORIZED: {
    status: 401,
    says: 'The server asks for a token: {why}.',
    do: 'Give the one that the server was started with: --token or SONDE_TOKEN, and for other programs the header `Authorization: Bearer TOKEN`.',
  },
  API_UNREACHABLE: {
    status: 503,
    says: 'No Sonde server answers at {where}: {why}.',
    do: 'Name the right address (--server or SONDE_SERVER), or start one: `sonde server`, or `npm start` for the demo.',
  },
  KIND_UNKNOWN: {
    status: 404,
    says: 'There is no kind of document called {kind}.',
    do: 'Kinds are {known}.',
  },
  LISTEN_FAILED: {
    status: 503,
    says: 'Listening on {where} is not possible: {why}.',
    do: 'Stop what listens there, or choose another address.',
  },
  LISTEN_NEEDS_TOKEN: {
    status: 400,
    says: 'Listening on {listen} would let anybody who reaches it change every network, since no token is set.',
    do: 'Set a token (SONDE_TOKEN, or `token` in the file), or listen on loopback, as 127.0.0.1:7070.',
  },
  NAME_UNKNOWN: {
    status: 404,
    says: 'There is no {what} called {name}{nearest}.',
    do: 'Leave the name out to see all there are.',
  },
  TRACE_UNKNOWN: {
    status: 404,
    says: 'There is no finished trace {id}.',
    do: 'List the newest: GET /v1/traces. A trace is kept as long as flow rows are.',
  },

  // --- Command line and configuration
  CLI_FILE_UNREADABLE: {
    status: 400,
    says: '{file} cannot be read: {why}.',
    do: 'Name a file that exists and that this user may read, or - for standard input.',
  },
  CLI_FILE_UNWRITABLE: {
    status: 400,
    says: '{file} cannot be written: {why}.',
    do: 'Check the path, whether this user may write there, and the space that is left.',
  },
  CONFIG_FILE_INVALID: {
    status: 400,
    says: 'The configuration file is not understood, {where}: {why}.',
    do: 'docs/configuration.md has an example.',
  },
  CONFIG_INVALID: {
    status: 400,
    says: 'Option {option} is "{value}" ({source}), expected {expected}.',
    do: 'Correct it there; `sonde config` shows what is in force and where it comes from.',
  },
  CONFIG_OPTION_UNKNOWN: {
    status: 400,
    says: 'There is no {what} called {name} ({where}); {hint}.',
    do: 'Correct the name; docs/configuration.md lists all of them.',
  },

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
  OVS_ANSWER_INVALID: {
    status: 502,
    says: 'Open vSwitch at {where} sent what this version does not understand: {why}.',
    do: 'Compare the versions of Open vSwitch and of Sonde; the connection is made anew.',
  },
  OVSDB_REFUSED: {
    status: 409,
    says: 'The Open vSwitch database at {where} refused {what}: {why}.',
    do: 'Correct what the reason names; nothing of the transaction was applied.',
  },
  METERS_REFUSED: {
    status: 409,
    says: 'The switch of {host} takes no meters ({why}): what it drops is counted, and no samples say who the peers were.',
    do: 'Meters need Linux 4.15 or later, or the userspace datapath; `ovs-ofctl -O OpenFlow15 meter-features BRIDGE` shows what there is.',
  },
  ZONES_EXHAUSTED: {
    status: 503,
    says: 'The bridge at {where} has {wanted} more vNICs than there are conntrack zones for them: only {given} could be given one, and the others carry no traffic.',
    do: 'Zones of vNICs that went become free ten minutes later; look for iface-ids of vNICs that are gone in Bridge.external_ids (sonde-ct-zone-*).',
  },
  ZONE_MAP_EDITED: {
    status: 409,
    says: 'The bridge at {where} has "{found}" as the conntrack zone of {endpoint}, which is no zone of Sonde, stands twice, or was another before; where it was taken away it is written back, else that vNIC gets another one, and its connections begin anew.',
    do: 'Leave the keys sonde-ct-zone-* of Bridge.external_ids to the agent; find out who wrote them.',
  },
  FRAGMENTS_LIMITED: {
    status: 409,
    says: 'Open vSwitch drops fragments of less than {least} octets but the last of a datagram, and did not let that be lowered: {why}. Guests with a smaller MTU cannot send datagrams that are larger than it.',
    do: 'Set it by hand, ovs-appctl dpctl/ipf-set-min-frag v4 400, after each start of ovs-vswitchd, or give these guests a larger MTU.',
  },
  SWITCH_STAYS_AWAY: {
    status: 503,
    says: 'ovs-vswitchd has been away, or not in line, for {seconds} s; it no longer waits for the flows when it comes (other_config:flow-restore-wait), so what the kernel forwards meanwhile is cut off then until they are there.',
    do: 'Start ovs-vswitchd, and see its log for why it ended.',
  },
  UNIXCTL_REFUSED: {
    status: 409,
    says: 'ovs-vswitchd at {where} refused the command {command}: {why}.',
    do: 'Compare the command with `ovs-appctl list-commands` of the installed version.',
  },

  // --- The bus
  BUS_BACKLOG: {
    status: 503,
    says: 'The bus at {where} is not reached, and {octets} octets wait for it already, as many as are kept.',
    do: 'Bring the server back, or lower the rate; what is refused here is not kept by the bus.',
  },
  BUS_DISK_FULL: {
    status: 507,
    says: 'The disk of the bus at {where} is full.',
    do: 'Free space there, or keep messages for a shorter time; agents keep theirs meanwhile.',
  },
  BUS_FAILED: {
    status: 503,
    says: 'The bus at {where} could not {what}: {why}.',
    do: 'It is tried again where that is safe; if the reason does not pass, restart the server.',
  },
  BUS_FRAME_INVALID: {
    status: 400,
    says: 'The bus at {where} was sent what it does not understand: {why}.',
    do: 'Compare the versions of agent and server.',
  },
  BUS_IN_USE: {
    status: 409,
    says: 'Another process has the bus at {where} open.',
    do: 'Stop that process, or give this one a data directory of its own.',
  },
  BUS_MESSAGE_REFUSED: {
    status: 422,
    says: 'The bus does not take message {index} for topic {topic}: {why}.',
    do: 'Correct what the reason names; nothing of the call was appended.',
  },
  BUS_NOT_OPENED: {
    status: 503,
    says: 'The bus at {where} cannot be opened: {why}.',
    do: 'Name a directory that this user can create and write; if the files were damaged, restore them from a backup.',
  },
  BUS_PARTITION_REVOKED: {
    status: 409,
    says: 'Partition {partition} of topic {topic} does not belong to this member of group {group} any more.',
    do: 'Nothing was committed. The member that has the partition now goes on from the last commit.',
  },
  BUS_REFUSED: {
    status: 401,
    says: 'The bus at {where} refuses this client: {why}.',
    do: 'Give the agent the token that the server was given.',
  },
  BUS_STOPPED: {
    status: 503,
    says: 'The bus at {where} is not open.',
    do: 'Try again when it has started.',
  },
  BUS_TOPIC_UNKNOWN: {
    status: 404,
    says: 'The bus has no topic {topic}; it has {known}.',
    do: 'Name one of those; if the topic is of a newer version, update the server first.',
  },
  BUS_UNREACHABLE: {
    status: 503,
    says: 'The bus at {where} does not answer: {why}.',
    do: 'Check that the server runs and that the address is right; the connection is tried again and again.',
  },
  SPOOL_FAILED: {
    status: 503,
    says: 'The spool at {where} could not keep a message: {why}.',
    do: 'Free space on that disk, or look there for what the reason names; the message was not kept and is counted as dropped.',
  },
  SPOOL_NOT_OPENED: {
    status: 503,
    says: 'The spool at {where} cannot be opened: {why}.',
    do: 'Name a directory that this user can create and write, with room for the spool.',
  },

  // --- The kernel's connection table
  CONNTRACK_DUMP_FAILED: {
    status: 503,
    says: "The kernel's connection table could not be read to its end: {why}.",
    do: 'It is read again at the next interval. If it stays, look at the load of the host and at `conntrack -C`.',
  },
  CONNTRACK_MODULE_MISSING: {
    status: 503,
    says: 'The kernel does not tell its connections ({what}: {why}).',
    do: 'Load the module that does: `modprobe nf_conntrack_netlink` (kernel option NF_CT_NETLINK); Debian has it in every kernel. Until then flows are counted by the other sources only.',
  },
  CONNTRACK_NOT_PERMITTED: {
    status: 403,
    says: "This process may not read the kernel's connection table ({what}: {why}).",
    do: 'Give it CAP_NET_ADMIN in its network namespace: run it as root, or with AmbientCapabilities=CAP_NET_ADMIN.',
  },
  CONNTRACK_SETTING_MISSING: {
    status: 503,
    says: 'The kernel has no {setting}, so {lost}.',
    do: "Use a kernel built with {option}; Debian's are.",
  },
  CONNTRACK_SETTING_REFUSED: {
    status: 403,
    says: '{setting} is {found} and could not be set to {wanted}: {why}; so {lost}.',
    do: 'Set it in the network namespace of the agent, before the first VM starts: `sysctl -w net.netfilter.{setting}={wanted}`, and in /etc/sysctl.d for the next boot. It is for connections that begin after.',
  },
  CONNTRACK_SOCKET_REFUSED: {
    status: 503,
    says: "The kernel's connection table cannot be reached ({what}: {why}).",
    do: 'Read the reason; the agent keeps trying, and the other sources of flows go on.',
  },
  TUNNEL_TRACKED: {
    status: 503,
    says: "The tunnel's own packets (UDP port {port}) stay in the kernel's connection table: {why}.",
    do: 'Install nftables and let the agent use it (CAP_NET_ADMIN), or have your own firewall say `udp dport {port} notrack` in its raw prerouting and output chains. Until then they take places in the table, and where it is full the tunnel itself loses packets.',
  },

  // --- Flow records
  CONNTRACK_CHECKPOINT_FAILED: {
    status: 500,
    says: 'What flow rows have told of living connections could not be {done} on {host}: {why}.',
    do: "Look at space and rights of the agent's state directory. Without it, an agent that starts counts connections from then on, and says how many it may have missed something of.",
  },
  CONNTRACK_LOOK_FAILED: {
    status: 503,
    says: "A look at the kernel's connection table on {host} was not whole: {why}.",
    do: 'The next one makes up for it. If it stays, see whether `conntrack -L` (package conntrack) works for the same user, and that the agent has CAP_NET_ADMIN.',
  },
  IPFIX_LISTEN_FAILED: {
    status: 503,
    says: 'The agent cannot take IPFIX at {where}: {why}.',
    do: 'Another process may have the port, or the address is not of this host: name another with --ipfix-listen.',
  },
  IPFIX_STATE_INVALID: {
    status: 500,
    says: 'The templates that the last run saved in {file} are not understood: {why}.',
    do: 'Nothing: the agent gets them from Open vSwitch again and writes the file anew. If it stays, remove the file and look at the disk.',
  },
  IPFIX_STATE_UNWRITABLE: {
    status: 503,
    says: 'The templates of Open vSwitch cannot be saved in {file}: {why}.',
    do: 'Free space on that disk, or let this user write there; until then the exporter is set up anew at each start of the agent, and what was lost meanwhile is not counted.',
  },
  RECEIVE_BUFFER_CUT: {
    status: 503,
    says: 'The kernel gives {given} octets of receive buffer for IPFIX, {asked} were asked for: bursts of records may be lost.',
    do: 'Allow it, and start the agent again: sysctl -w net.core.rmem_max={asked}, and the same in /etc/sysctl.d/ to keep it.',
  },

  // --- The lab
  LAB_COMMAND_FAILED: {
    status: 500,
    says: 'The lab could not {what}: `{command}` failed: {why}.',
    do: 'Read the reason above; logs of Open vSwitch are in the run directory of the lab. `sonde lab down` removes what is there.',
  },
  LAB_DATAPATH_MISSING: {
    status: 500,
    says: 'The kernel of this machine ({kernel}) has no datapath of Open vSwitch: {why}.',
    do: 'Build the lab with --datapath kernel, which brings a kernel of its own, or with --datapath userspace.',
  },
  LAB_KERNEL_HOST_FAILED: {
    status: 500,
    says: 'The kernel host {instance} could not {what}: {why}.',
    do: 'Read the reason above; the console of the guest is in {log} while its folder is there. `sonde lab down` removes what is left.',
  },
  LAB_KERNEL_HOST_UNAVAILABLE: {
    status: 500,
    says: 'There is no image to boot a kernel host from, and none can be made: {why}.',
    do: 'Mend that, or use the userspace datapath, which needs no kernel host.',
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

  // --- Traces
  TRACE_ADDRESS_MISSING: {
    status: 409,
    says: 'Endpoint {name} has no {family} address, so no packet between {source} and {destination} can carry one.',
    do: 'Give the endpoint an address, or name an address of the same family on both sides.',
  },
  TRACE_ENDPOINT_AMBIGUOUS: {
    status: 409,
    says: '{name} may mean {count} endpoints: {candidates}.',
    do: 'Name one of them by its iface-id.',
  },
  TRACE_ENDPOINT_UNKNOWN: {
    status: 404,
    says: 'No endpoint, VM or iface-id is called {name}{nearest}.',
    do: 'See which endpoints there are (sonde get endpoints); a destination may also be an IP address.',
  },
  TRACE_INTERRUPTED: {
    status: 503,
    says: 'The server stopped while the trace was on its way.',
    do: 'Trace again when the server is back.',
  },
  TRACE_PACKET_INVALID: {
    status: 400,
    says: 'The packet cannot be built: {field} is {value}, expected {expected}.',
    do: 'Correct that field.',
  },
  TRACE_SOURCE_UNPLACED: {
    status: 409,
    says: 'Endpoint {name} is on no host now, so nothing can send in its name.',
    do: 'Start its VM; where it runs, check the agent on its host (sonde get hosts).',
  },
  TRACE_TOO_MANY: {
    status: 503,
    says: 'There are {count} traces in work, as many as this server allows.',
    do: 'Try again when some have finished.',
  },

  // --- The store (ClickHouse's engine)
  STORE_ACCESS_DENIED: {
    status: 503,
    says: 'The store at {where} does not let user {user} do this: {why}.',
    do: 'Check clickhouseUser and clickhousePassword, and that this user may create and fill the database sonde. Rows wait on the bus meanwhile.',
  },
  STORE_DATA_REFUSED: {
    status: 422,
    says: 'The store at {where} refuses data for table {table}: {why}.',
    do: 'Nothing of it was stored. Find out who wrote it; messages of the bus are kept on topic sonde.dead with the reason.',
  },
  STORE_DISK_FULL: {
    status: 507,
    says: 'The disk of the store at {where} is full.',
    do: 'Free space there, or keep flow rows for fewer days; writing goes on by itself and nothing on the bus is lost meanwhile.',
  },
  STORE_FAILED: {
    status: 503,
    says: 'The store at {where} could not write to table {table}: {why}.',
    do: 'The write is tried again; if the reason does not pass, restart the server.',
  },
  STORE_IN_USE: {
    status: 409,
    says: 'Another process ({process}) has the store at {where} open.',
    do: 'Stop that process, or give this one a data directory of its own.',
  },
  STORE_NOT_OPENED: {
    status: 503,
    says: 'The store at {where} cannot be opened: {why}.',
    do: 'If the directory was made by another program or a newer engine, name another one; otherwise restore it from a backup.',
  },
  STORE_NOT_WRITABLE: {
    status: 503,
    says: 'The store cannot use the directory {where}: {why}.',
    do: 'Name a directory that this user can create and write.',
  },
  STORE_QUERY_FAILED: {
    status: 400,
    says: 'The store at {where} cannot answer the query: {why}.',
    do: 'Correct the query.',
  },
  STORE_QUERY_REFUSED: {
    status: 403,
    says: 'The store at {where} does not answer this statement: {why}.',
    do: 'Ask with one SELECT. What changes tables goes by the server itself.',
  },
  STORE_QUERY_TIMEOUT: {
    status: 504,
    says: 'The store at {where} gave up a query: {why}.',
    do: 'Ask for a shorter span of time or fewer rows.',
  },
  STORE_SCHEMA_NEWER: {
    status: 409,
    says: 'The store at {where} has schema version {found}; this program knows versions up to {known}.',
    do: 'Run the newer program, or give this one a data directory of its own. Nothing was changed.',
  },
  STORE_STOPPED: {
    status: 503,
    says: 'The store at {where} is not open.',
    do: 'Try again when the server has started.',
  },
  STORE_UNREACHABLE: {
    status: 503,
    says: 'The store at {where} does not answer: {why}.',
    do: 'Check that ClickHouse runs and that the address is right; it is tried again, and rows wait on the bus meanwhile.',
  },
  OPENFLOW_REJECTED: {
    status: 502,
    says: 'Open vSwitch at {where} refused {what}: {why}.',
    do: 'Its log has the details (ovs-vswitchd.log). Of a bundle nothing was applied. Where a declared document cannot be the cause, report it with the output of ovs-vswitchd --version.',
  },
  OPENFLOW_TLV_TAKEN: {
    status: 409,
    says: 'Open vSwitch at {where} carries another Geneve option in tun_metadata{index}: {found} instead of {wanted}.',
    do: 'Find out which other controller uses this bridge (ovs-ofctl dump-tlv-map) and unmap its option there, or give Sonde a bridge of its own.',
  },
  OPENFLOW_VERSION: {
    status: 409,
    says: 'The bridge at {where} does not speak OpenFlow 1.5; it offers {versions}.',
    do: 'Allow it: ovs-vsctl add bridge {bridge} protocols OpenFlow15; the agent keeps trying.',
  },
  AGENT_ALREADY_RUNNING: {
    status: 409,
    says: 'Another agent of this host has the Open vSwitch at {where} already ({why}); two would undo each other, and count the same connections.',
    do: 'Stop one of them (systemctl status sonde-agent; pgrep -af "sonde agent"), and see which one the host is to have.',
  },
  UNDERLAY_MTU_SMALL: {
    status: 409,
    says: 'Packets of full size do not reach other hosts: the way to {peer} is {device} with an MTU of {mtu}, vNICs have up to {inner}, and a tunnel needs {needed}.',
    do: 'Raise the MTU of {device} and of the fabric behind it to {needed} or more (62 above that of the vNICs, so that traced packets fit too), or lower that of the vNICs.',
  },
  UNDERLAY_MTU_TIGHT: {
    status: 409,
    says: 'Traced packets of full size do not reach other hosts, while ordinary ones do: the way to {peer} is {device} with an MTU of {mtu}, vNICs have up to {inner}, and a traced packet needs {needed}.',
    do: 'Raise the MTU of {device} and of the fabric behind it to {needed}, or leave it: traces of smaller packets work.',
  },
  AGENT_STATE_FAILED: {
    status: 500,
    says: 'What the agent keeps of its counts at {path} cannot be {what}: {why}.',
    do: 'Make the folder writable and large enough; a file that is not understood is begun anew. Counts go on; after the next restart what was dropped shortly before it may be told twice, or not at all.',
  },
  CLOCK_STEPPED: {
    status: 503,
    says: 'The clock of {host} was set {direction} by {seconds} s.',
    do: 'Let chrony or ntpd slew it. No row is lost or doubled: set back, times of rows stand still until it has caught up; set forward, open connections may be shown as ended and begun anew.',
  },
  ENCAP_ADDRESS_MISSING: {
    status: 503,
    says: 'Open vSwitch at {where} does not say which underlay address tunnels of this host end at; external_ids:sonde-encap-ip is {found}.',
    do: 'Set it: ovs-vsctl set Open_vSwitch . external_ids:sonde-encap-ip=A.B.C.D; the agent keeps trying.',
  },
  // --- The demo
  DEMO_FAILED: {
    status: 500,
    says: 'The demo could not {what}: {why}.',
    do: 'Look into the logs of server and agents, /run/sonde-lab/INSTANCE/log, while it stays up.',
  },
  // --- Documents
  DOCUMENTS_CONTENDED: {
    status: 409,
    says: 'Other writers changed the documents each of the {attempts} times that this change was to be written.',
    do: 'Apply again; if it does not pass, stop what else applies documents all the time.',
  },
  DOCUMENTS_INVALID: {
    status: 422,
    says: 'The documents are not applied, {count} problem(s): {summary}.',
    do: 'Correct what is named and apply again; nothing of the batch is in force.',
  },
  DOCUMENT_UNKNOWN: {
    status: 404,
    says: 'There is no document {document}.',
    do: 'List what there is: sonde get networks, routers, endpoints, groups or policies.',
  },
  NOT_REALIZED: {
    status: 504,
    says: 'The change has not taken effect within {seconds} s.',
    do: 'See which host is behind and why: sonde get hosts.',
  },
  POLICY_TIER_FULL: {
    status: 422,
    says: 'Tier {tier} would have more than {most} rules.',
    do: 'Move policies to another tier, or join rules that differ in their peers only.',
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

"""The kinds of ssh host, by address: what each does, as sshd configuration and as nftables rules."""

from __future__ import annotations

NETWORKS = {
    "healthy": 100,  # 127.100.0.0/16, and so on
    "no_banner": 101,  # TCP connects, then silence
    "refused": 102,
    "blackhole": 103,
    "unreachable": 104,
    "flapping": 105,  # each host refuses its first, third, ... connection
    "new_key": 106,  # answers with another host key than the rest
    "no_auth": 107,  # accepts neither key nor password
    "hang": 108,  # login works, no command ever starts
    "block": 109,  # a command that names python (an Ansible module) never ends, others work
    "slow": 110,  # 5 s before each command
    "drop": 111,  # 1 s after a command has started the connection is cut
    "flood": 112,  # 50 MB of output before the command's own
    "binary": 113,  # bytes that are not UTF-8 before the command's own output
    "stubborn": 114,  # prints a line each second for ever, ignores SIGTERM, SIGHUP and a closed pipe
    "endless": 115,  # prints for ever, as fast as it can
}
BY_THE_NETWORK = ("no_banner", "refused", "blackhole", "unreachable", "flapping", "new_key")  # need nftables, so root

_RUN = 'exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"'
_FORCED = {
    "hang": "exec sleep 100000",
    "block": f'case "$SSH_ORIGINAL_COMMAND" in *python*) exec sleep 100000;; esac; {_RUN}',
    "slow": f"sleep 5; {_RUN}",
    "drop": '(sleep 1; kill -9 $PPID) & exec /bin/sh -c "$SSH_ORIGINAL_COMMAND; sleep 2"',
    "flood": f"head -c 50000000 /dev/zero | tr '\\0' x; {_RUN}",
    "binary": f"printf '\\377\\376\\0binary\\n'; {_RUN}",
    "endless": "exec yes",
    "stubborn": "trap '' TERM HUP PIPE INT; while :; do echo alive; sleep 1; done",
}


def network(kind: str) -> str:
    return f"127.{NETWORKS[kind]}.0.0/16"


def hosts(kind: str = "healthy", count: int = 1) -> list[str]:
    """The first count addresses of a kind; 60,000 at most."""
    return [f"127.{NETWORKS[kind]}.{number // 250}.{number % 250 + 1}" for number in range(count)]


def sshd_config(port: int, host_key: str, *options: str, user: str = "*") -> str:
    """options are further lines for all hosts. Nobody but user can log in, and nobody from another machine."""
    lines = [
        f"ListenAddress 0.0.0.0:{port}",
        f"AllowUsers {user}@127.0.0.0/8",
        f"HostKey {host_key}",
        "PidFile none",
        "KbdInteractiveAuthentication no",
        "UseDNS no",
        "MaxStartups 4000:30:8000",
        "MaxSessions 1000",
        "Subsystem sftp internal-sftp",
        *options,
        f"Match LocalAddress {network('no_auth')}",
        "  AuthorizedKeysFile none",
        "  PasswordAuthentication no",
    ]
    for kind, command in _FORCED.items():
        lines += [f"Match LocalAddress {network(kind)}", f"  ForceCommand {command}"]
    return "\n".join(lines) + "\n"


def nft_rules(table: str, port: int, other_key: int, silent: int) -> str:
    """other_key and silent are the ports of the second sshd and of the listener that never answers."""

    def to(kind: str) -> str:
        return f"ip daddr {network(kind)} tcp dport {port}"

    first_packet = "tcp flags & (syn | ack) == syn"
    return f"""table inet {table} {{
set cut {{ type ipv4_addr; }}
set rekeyed {{ type ipv4_addr; }}
set refused_once {{ type ipv4_addr; flags dynamic; size 65535; }}
chain before_routing {{ type nat hook output priority -100;
  {to("no_banner")} redirect to :{silent}
  {to("new_key")} redirect to :{other_key}
  ip daddr @rekeyed tcp dport {port} redirect to :{other_key}
}}
chain arriving {{ type filter hook input priority 0;
  ip saddr @cut tcp sport {port} drop
  ip daddr @cut tcp dport {port} drop
  {to("refused")} reject with tcp reset
  {to("blackhole")} drop
  {to("unreachable")} reject with icmp host-unreachable
  {to("flapping")} {first_packet} ip daddr @refused_once delete @refused_once {{ ip daddr }} accept
  {to("flapping")} {first_packet} add @refused_once {{ ip daddr }} reject with tcp reset
}}
}}"""

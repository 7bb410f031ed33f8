"""A contestant as a command: parallel-ssh, a library with libssh2 that needs no ssh client.

    python parallel_ssh.py USER PORT KEY HOST,HOST,... TEXT

Ends with 1 unless the text's exit code is 0 on each host.
"""

from __future__ import annotations

import sys

from pssh.clients import ParallelSSHClient


def main(user: str, port: str, key: str, names: str, text: str) -> int:
    hosts = names.split(",")
    client = ParallelSSHClient(hosts, user=user, port=int(port), pkey=key, pool_size=len(hosts))
    answers = client.run_command(text)
    client.join(answers)
    for answer in answers:
        print(answer.host, answer.exit_code, *answer.stdout)
    return int(any(answer.exit_code for answer in answers))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

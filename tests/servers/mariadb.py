"""A private MariaDB: own data directory, socket and port; the system's MariaDB is not touched."""

from __future__ import annotations

import getpass
import signal
import subprocess
from pathlib import Path

from tests.servers.process import Process, free_ports, program

USER, PASSWORD = "ee", "ee-password"
DATABASES = "ee_%"  # user ee may do anything with the databases of such names


class MariaDB:
    """directory must be short: a socket path ends at 107 characters. root has no password and uses the socket."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self.process = Process(directory, "mariadbd")

    def start(self, *options: str) -> None:
        """options go to mariadbd as they are. A second start keeps data and port. Blocks until it answers."""
        server = program("mariadbd", "mariadb-server")
        new = self.port == 0
        if new:
            self._install()
            (self.port,) = free_ports(1)
        self.process.start([
            server, *self._own(), f"--socket={self.directory}/s", f"--port={self.port}", "--bind-address=127.0.0.1",
            "--skip-name-resolve", "--character-set-server=utf8mb4", "--innodb-buffer-pool-size=64M", *options,
        ])  # fmt: skip
        self.process.wait_until(self._answers)
        if new:
            self.sql(
                f"CREATE USER {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';"
                f"GRANT ALL ON `{DATABASES.replace('_', chr(92) + '_')}`.* TO {USER}@'127.0.0.1'"
            )

    def sql(self, text: str) -> str:
        """Run as root by the socket: works while the port is full or the server is read-only."""
        return subprocess.run([*self._client(), "-NBe", text], check=True, capture_output=True, text=True).stdout

    def stop(self) -> None:
        self.process.stop()

    def kill(self) -> None:
        self.process.stop(first=signal.SIGKILL)

    def pause(self) -> None:
        """The server hangs: it sends no greeting and answers no query."""
        self.process.pause()

    def resume(self) -> None:
        self.process.send(signal.SIGCONT)

    def _own(self) -> list[str]:
        return ["--no-defaults", f"--user={getpass.getuser()}", f"--datadir={self.directory}/data"]

    def _install(self) -> None:
        install = program("mariadb-install-db", "mariadb-server")
        arguments = [*self._own(), "--auth-root-authentication-method=normal", "--skip-test-db"]
        done = subprocess.run([install, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"mariadb-install-db failed:\n{done.stdout}{done.stderr}")

    def _client(self) -> list[str]:
        client = program("mariadb", "mariadb-client")
        return [client, "--no-defaults", f"--socket={self.directory}/s", "-uroot", "--connect-timeout=2"]

    def _answers(self) -> bool:
        return subprocess.run([*self._client(), "-e", "SELECT 1"], capture_output=True, check=False).returncode == 0

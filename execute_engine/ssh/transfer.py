"""One file over sftp, piece by piece, so that the local file is read and written in the worker's own thread."""

from __future__ import annotations

from typing import Any

import asyncssh
from ansible.errors import AnsibleError

from execute_engine.ssh.failures import lost_during

PIECE_BYTES = 4 << 20


class Transfer:
    """A remote file that is open. Everything happens in the event loop; raises AnsibleError, Unreachable when lost."""

    def __init__(self, address: str, paths: str, sftp: asyncssh.SFTPClient, file: Any) -> None:
        self._address = address
        self._paths = paths
        self._sftp = sftp
        self._file = file

    @classmethod
    async def open(
        cls, connection: asyncssh.SSHClientConnection, address: str, source: str, target: str, permissions: int | None
    ) -> Transfer:
        """permissions: of the new remote file, which is target; None reads the remote file, which is source."""
        paths = f"{source} {target}"
        try:
            sftp = await connection.start_sftp_client(path_encoding="utf-8", path_errors="surrogateescape")
        except asyncssh.Error as error:
            if connection.is_closed() or isinstance(error, asyncssh.DisconnectError):
                raise lost_during("a file transfer", address, error) from error
            raise AnsibleError(
                f"failed to transfer file to {paths}: {address} offers no sftp; "
                "set `Subsystem sftp internal-sftp` in its sshd_config"
            ) from error
        transfer = cls(address, paths, sftp, None)
        try:
            if permissions is None:
                transfer._file = await sftp.open(source, "rb", encoding=None)
            else:
                attributes = asyncssh.SFTPAttrs(permissions=permissions)
                transfer._file = await sftp.open(target, "wb", attributes, encoding=None)
        except (OSError, asyncssh.Error) as error:
            sftp.exit()
            raise transfer._failure(error) from error
        return transfer

    async def read(self) -> bytes:
        """The next piece, empty at the end."""
        try:
            return bytes(await self._file.read(PIECE_BYTES))
        except (OSError, asyncssh.Error) as error:
            raise self._failure(error) from error

    async def write(self, piece: bytes) -> None:
        try:
            await self._file.write(piece)
        except (OSError, asyncssh.Error) as error:
            raise self._failure(error) from error

    async def close(self) -> None:
        try:
            await self._file.close()
        except (OSError, asyncssh.Error) as error:
            raise self._failure(error) from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        self._sftp.exit()

    def _failure(self, error: Exception) -> AnsibleError:
        if isinstance(error, (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.DisconnectError)):
            return lost_during("a file transfer", self._address, error)
        text = getattr(error, "reason", None) or str(error)
        return AnsibleError(f"failed to transfer file to {self._paths}: {text}")

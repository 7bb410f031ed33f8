"""From nothing to a logged-in connection: TCP, greeting, login, each with its own deadline."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import ipaddress
import socket
import threading
from typing import Any

import asyncssh
from asyncssh import auth as auth_methods
from asyncssh.constants import MSG_IGNORE
from asyncssh.logging import SSHLogger
from asyncssh.misc import construct_disc_error

from execute_engine.errors import KeyFileError
from execute_engine.job import SshSettings
from execute_engine.ssh.failures import GreetingTimeout, LoginRefused, Unreachable, connect_failure
from execute_engine.ssh.host_keys import HostKeys
from execute_engine.ssh.progress import Progress

KEEPALIVE_SECONDS = 15
KEEPALIVES_MISSED = 4

# The cheap and modern ones first; the last of each line are what an OpenSSH 5.3 to 7.4 (CentOS 6 and 7) still has.
KEX_ALGORITHMS = [
    *("curve25519-sha256", "curve25519-sha256@libssh.org"),
    *("ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521"),
    *("diffie-hellman-group14-sha256", "diffie-hellman-group16-sha512", "diffie-hellman-group18-sha512"),
    *("diffie-hellman-group-exchange-sha256", "diffie-hellman-group14-sha1"),
]
ENCRYPTION_ALGORITHMS = [
    *("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"),
    *("aes128-ctr", "aes192-ctr", "aes256-ctr"),
]
MAC_ALGORITHMS = [
    *("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha1-etm@openssh.com"),
    *("hmac-sha2-256", "hmac-sha2-512", "hmac-sha1"),
]


class Logins:
    """Logs in to hosts. What is the same for all of them (key file, algorithms) is read and checked once, here.

    Raises KeyFileError when the key file cannot be read or is encrypted.
    """

    def __init__(self, settings: SshSettings, host_keys: HostKeys) -> None:
        self.settings = settings
        self.host_keys = host_keys
        self.key_pairs = load_key(settings.key_file)
        self._options = asyncssh.SSHClientConnectionOptions(
            username=settings.user,
            port=settings.port,
            client_keys=None,
            preferred_auth=["publickey", "password", "keyboard-interactive"],
            host_based_auth=False,
            gss_host=None,
            agent_path=None,
            config=None,
            known_hosts=lambda host, address, port: ([], [], []),  # Client judges; b"" would read the user's file
            x509_trusted_certs=None,
            kex_algs=KEX_ALGORITHMS,
            encryption_algs=ENCRYPTION_ALGORITHMS,
            mac_algs=MAC_ALGORITHMS,
            compression_algs=None,
            login_timeout=0,  # log_in() keeps all deadlines
            keepalive_interval=KEEPALIVE_SECONDS,
            keepalive_count_max=KEEPALIVES_MISSED,
            utf8_decode_errors="replace",
        )
        self.seconds = {
            "connecting": settings.connect_timeout_seconds,
            "greeting": settings.connect_timeout_seconds,
            "login": settings.login_timeout_seconds,
        }

    def address(self, host: str) -> str:
        return f"[{host}]:{self.settings.port}" if ":" in host else f"{host}:{self.settings.port}"

    async def log_in(self, host: str, progress: Progress) -> Client:
        """Raises Unreachable or LoginRefused with the reason; the wait is bounded by self.seconds."""
        client = Client(self, host, progress)
        progress.enter("connecting")
        try:
            await self._establish(host, client)
        except asyncssh.PermissionDenied as error:
            raise self._refused(host) from error
        except (Exception, asyncio.CancelledError) as error:
            client.abort()
            if isinstance(error, asyncio.CancelledError):
                raise
            if client.refusal:
                raise Unreachable("host_key", client.refusal) from error
            cause = client.our_reason or error
            raise connect_failure(cause, self.address(host), progress.stage or "", self.seconds) from error
        return client

    async def _establish(self, host: str, client: Client) -> None:
        loop = asyncio.get_running_loop()
        # asyncssh.connect() builds all options anew in another thread for each connection: 1 ms of CPU a host.
        options = copy.copy(self._options)
        options.host = options.orig_host = host
        options.protocol_factory = lambda: client
        options.server_host_key_algs = self.host_keys.algorithms(host)
        options.waiter = loop.create_future()
        try:
            async with asyncio.timeout(self.seconds["connecting"]):
                await _open_tcp(loop, lambda: _Connection(loop, options, wait="auth"), host, self.settings.port)
            greeted = {client.greeted, options.waiter}
            await asyncio.wait(greeted, timeout=self.seconds["greeting"], return_when=asyncio.FIRST_COMPLETED)
            if not client.greeted.done() and not options.waiter.done():
                raise GreetingTimeout
            async with asyncio.timeout(self.seconds["login"]):
                await options.waiter
        finally:
            options.waiter.cancel()

    def _refused(self, host: str) -> LoginRefused:
        offered = [f"the key {self.settings.key_file}"] if self.key_pairs else []
        offered += ["the password"] if self.settings.password else []
        what = " and ".join(offered) or "a login without key and password"
        return LoginRefused(f"{self.address(host)} refuses {what} for user {self.settings.user}")


class Client(asyncssh.SSHClient):
    """asyncssh's callbacks for one connection: which key is accepted, what is offered, and how far the login is."""

    connection: _Connection

    def __init__(self, logins: Logins, host: str, progress: Progress) -> None:
        self._logins = logins
        self._host = host
        self._progress = progress
        self._key_pairs = [
            copy.copy(pair) for pair in logins.key_pairs
        ]  # one keeps the algorithm it was last used with
        self._password = logins.settings.password or None
        self._offered_key = ""
        self.greeted = asyncio.get_running_loop().create_future()
        self.refusal: str | None = None
        self.our_reason: asyncssh.DisconnectError | None = None  # why this end gives up
        self.new_key: str | None = None
        self.lost = True  # until it stands

    def abort(self) -> None:
        self.lost = True
        if hasattr(self, "connection"):
            self.connection.abort()

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        assert isinstance(conn, _Connection)
        self.connection = conn
        self.lost = False
        self._progress.enter("greeting")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def greeting_came(self) -> None:
        self._progress.enter("login")
        if not self.greeted.done():
            self.greeted.set_result(None)

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self._offered_key = " ".join(key.export_public_key("openssh").decode().split()[:2])
        self.refusal = self._logins.host_keys.refusal(self._host, self._offered_key)
        return self.refusal is None

    def begin_auth(self, username: str) -> None:
        # Only now has the host signed with its key.
        if self._logins.host_keys.learn(self._host, self._offered_key):
            self.new_key = self._offered_key
        # With a password it is not known which of the two the host wants first, or how many wrong answers it takes.
        if self._key_pairs and self._password is None:
            self.connection.begin_with_key()

    def public_key_auth_requested(self) -> Any:
        return self._key_pairs.pop(0) if self._key_pairs else None

    def password_auth_requested(self) -> str | None:
        """Once a connection, whichever way the host asks: a second try counts towards locking the account."""
        password, self._password = self._password, None
        return password

    def kbdint_auth_requested(self) -> str | None:
        return "" if self._password is not None else None

    def kbdint_challenge_received(self, name: str, instructions: str, lang: str, prompts: Any) -> list[str] | None:
        if not prompts:
            return []  # only a text to show
        hidden = len(prompts) == 1 and not prompts[0][1]
        password = self.password_auth_requested() if hidden else None
        return None if password is None else [password]


class _Quiet(SSHLogger):
    """asyncssh makes up two dozen texts for each connection before it asks whether anybody wants them."""

    def log(self, level: int, msg: object, *args: Any, **more: Any) -> None:
        if self.isEnabledFor(level):
            super().log(level, msg, *args, **more)


class _SignedAtOnce(auth_methods._ClientPublicKeyAuth):
    """Asks with the signature, not first whether the host would have this key: a round trip less (RFC 4252, 7)."""

    _conn: _Connection

    async def _start(self) -> None:
        self._keypair = await self._conn.public_key_auth_requested()
        if self._keypair is None:
            self._conn.try_next_auth(next_method=True)
        else:
            await self._send_signed_request()

    def auth_failed(self) -> None:
        """The host's list of methods is here; it never has "none", which some hosts take of anybody."""
        if self._conn.began_with_key:
            self._conn._auth_methods.append(b"none")


class _Connection(asyncssh.SSHClientConnection):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._logger = _Quiet(context=f"host={self._options.host}")
        self.began_with_key = False

    def begin_with_key(self) -> None:
        """Before "none", by which a client learns what the host offers: another round trip less for who has a key."""
        self._auth_methods = [b"publickey", b"none"]
        self.began_with_key = True

    def _send_disconnect(self, code: int, reason: str, lang: str) -> None:
        """A host that found the same fault has hung up already: asyncssh then takes the loss for the reason."""
        client = self.get_owner()
        if isinstance(client, Client):
            client.our_reason = construct_disc_error(code, reason, lang)
        super()._send_disconnect(code, reason, lang)

    def _log_packet(self, *args: Any) -> None:
        """For asyncssh's debug level 3."""

    def send_packet(self, pkttype: int, *args: bytes, **more: Any) -> None:
        """asyncssh sends an empty packet before each one, which helps CBC ciphers (RFC 4253, 9.3.1): we offer none."""
        if pkttype != MSG_IGNORE:
            super().send_packet(pkttype, *args, **more)

    def set_extra_info(self, **kwargs: Any) -> None:
        super().set_extra_info(**kwargs)
        client = self.get_owner()
        if "server_version" in kwargs and isinstance(client, Client):  # asyncssh has no callback for the greeting
            client.greeting_came()


auth_methods._client_auth_handlers[b"publickey"] = _SignedAtOnce


def load_key(path: str) -> list[asyncssh.SSHKeyPair]:
    """The key and, where PATH-cert.pub lies beside it, its certificate. "" means no key."""
    if not path:
        return []
    try:
        return list(asyncssh.load_keypairs(path))
    except asyncssh.KeyEncryptionError as error:
        raise KeyFileError(
            f"the ssh key {path} has a passphrase; [Ansible] SSH_KEY_FILE needs a key without one"
        ) from error
    except OSError as error:
        raise KeyFileError(f"the ssh key {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        if "assphrase" in str(error):
            raise KeyFileError(
                f"the ssh key {path} has a passphrase; [Ansible] SSH_KEY_FILE needs a key without one"
            ) from error
        raise KeyFileError(f"the ssh key {path} is not a private key that can be used: {error}") from error


async def _open_tcp(loop: asyncio.AbstractEventLoop, factory: Any, host: str, port: int) -> None:
    """To the first address of the host that answers."""
    addresses = await _resolve(loop, host)
    for address in addresses[:-1]:
        with contextlib.suppress(OSError):
            await loop.create_connection(factory, address, port)
            return
    await loop.create_connection(factory, addresses[-1], port)


async def _resolve(loop: asyncio.AbstractEventLoop, host: str) -> list[str]:
    """A name server that hangs holds up one daemon thread, not the loop's few resolver threads or the process's end."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return [host]
    answer: asyncio.Future[list[str]] = loop.create_future()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            _settle(loop, answer, error)
        else:
            _settle(loop, answer, [str(entry[4][0]) for entry in found])

    threading.Thread(target=look_up, daemon=True, name=f"resolve {host}").start()
    return await answer


def _settle(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[list[str]], outcome: list[str] | OSError) -> None:
    def settle() -> None:
        if answer.done():
            return
        if isinstance(outcome, OSError):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(settle)

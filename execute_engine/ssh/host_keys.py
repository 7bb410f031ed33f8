"""Which host keys are accepted. A key is the text "type base64", as in .pub files and in the table host_key."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping

ALGORITHMS = {  # key type -> signature algorithms, the preferred one first
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"),
}


class HostKeys:
    """The known keys of a runner's hosts under one HOST_KEY_CHECKING: accept-new, yes or no."""

    def __init__(self, checking: str, known: Mapping[str, tuple[str, ...]]) -> None:
        self._checking = checking
        self._known = dict(known)

    def algorithms(self, host: str) -> list[str]:
        """What to ask the server for: types of known keys first, so that another key of the same host is no change."""
        known = {key.split()[0] for key in self._known.get(host, ())}
        types = sorted(ALGORITHMS, key=lambda key_type: key_type not in known)
        return [algorithm for key_type in types for algorithm in ALGORITHMS[key_type]]

    def refusal(self, host: str, offered: str) -> str | None:
        """None: the key is accepted. Otherwise the sentence that says why not, and what to do."""
        known = self._known.get(host, ())
        if self._checking == "no" or offered in known:
            return None
        if known:
            return (
                f"the host key of {host} has changed: expected {' or '.join(map(described, known))}, "
                f"found {described(offered)}; if the host was reinstalled delete its rows from host_key, "
                "otherwise somebody may be in between"
            )
        if self._checking == "yes":
            return (
                f"the host key of {host} is not known: found {described(offered)}, and HOST_KEY_CHECKING = yes "
                "accepts known keys only; add the key to host_key or set HOST_KEY_CHECKING = accept-new"
            )
        return None

    def learn(self, host: str, offered: str) -> bool:
        """Remember a key that the host has proven to hold. True: it is the first one of this host."""
        if self._checking == "no" or offered in self._known.get(host, ()):
            return False
        self._known[host] = (*self._known.get(host, ()), offered)
        return True


def described(key: str) -> str:
    """Type and fingerprint as ssh-keygen -l prints them: ssh-ed25519 SHA256:..."""
    key_type, _, blob = key.partition(" ")
    try:
        digest = hashlib.sha256(base64.b64decode(blob.split()[0], validate=True)).digest()
    except (IndexError, binascii.Error):
        return f"{key_type} (damaged)"
    return f"{key_type} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"

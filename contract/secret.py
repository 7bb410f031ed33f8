"""Encrypted values in the configuration, and of tasks with secret_args: enc:..., Fernet, the key in a file of its own.

    python -m contract.secret new-key            makes the key file, mode 0600
    python -m contract.secret encrypt            reads a value from the terminal or standard input, prints enc:...
    python -m contract.secret check              reads enc:... and says whether the key opens it

The key file is --key-file, or EXECUTE_ENGINE_SECRET_KEY_FILE, or conf/secret.key.
"""

from __future__ import annotations

import argparse
import getpass
import hmac
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import SecretError

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

PREFIX = "enc:"
VARIABLE = "EXECUTE_ENGINE_SECRET_KEY_FILE"
FILE_NAME = "secret.key"


def key_file(folder: Path) -> Path:
    """Where the key is: what the environment says, else the file in the folder of the configuration."""
    return Path(os.environ.get(VARIABLE) or folder / FILE_NAME)


def new_key(path: Path) -> None:
    """Make the key file; one that root makes belongs to the folder's owner.

    Raises SecretError when there is one already: what it encrypted would be lost.
    """
    from cryptography.fernet import Fernet

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as exc:
        raise SecretError(f"{path} is there already; move it away to make a new key") from exc
    except OSError as exc:
        raise SecretError(f"{path} cannot be made: {exc.strerror}") from exc
    with os.fdopen(descriptor, "wb") as opened:
        if os.geteuid() == 0:  # in the services' folder it is theirs to read
            folder = path.parent.stat()
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
        opened.write(Fernet.generate_key() + b"\n")


def encrypt(value: str, path: Path) -> str:
    """enc:... of the value, by the key in path. Raises SecretError."""
    return PREFIX + _cipher(path).encrypt(value.encode()).decode()


def fingerprint(value: str, path: Path) -> str:
    """The same for the same value and key, and of no use without the key: HMAC-SHA-256. Raises SecretError."""
    return hmac.new(_key(path), value.encode(), "sha256").hexdigest()


def decrypt(text: str, path: Path) -> str:
    """The value behind enc:..., by the key in path. Raises SecretError, whose text shows neither."""
    from cryptography.fernet import InvalidToken

    cipher = _cipher(path)
    try:
        return cipher.decrypt(text.removeprefix(PREFIX).encode()).decode()
    except InvalidToken as exc:
        raise SecretError(f"the value is damaged or was encrypted with another key than {path}") from exc


def _cipher(path: Path) -> Fernet:
    from cryptography.fernet import Fernet  # 20 ms and 8 MB that a process without encrypted values does not spend

    try:
        return Fernet(_key(path))
    except ValueError as exc:
        raise SecretError(f"{path} holds no key; make one with python -m contract.secret new-key") from exc


def _key(path: Path) -> bytes:
    try:
        with path.open("rb") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            key = opened.read(1024).strip()
    except OSError as exc:
        raise SecretError(f"the key file {path} cannot be read: {exc.strerror}") from exc
    if mode & 0o077:
        raise SecretError(f"the key file {path} has mode {mode:04o}, expected 0600: others could read it")
    return key


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m contract.secret", description="Encrypted configuration values.")
    parser.add_argument("action", choices=["new-key", "encrypt", "check"])
    parser.add_argument("--key-file", type=Path, default=key_file(Path("conf")))
    arguments = parser.parse_args()
    try:
        _act(arguments.action, arguments.key_file)
    except SecretError as exc:
        sys.exit(f"{parser.prog}: {exc}")


def _act(action: str, path: Path) -> None:
    if action == "new-key":
        new_key(path)
        print(f"made {path}; whoever can read it can read the values encrypted with it", file=sys.stderr)
        return
    value = _ask("Value: " if action == "encrypt" else "enc:... : ")
    if action == "encrypt":
        print(encrypt(value, path))
    else:
        decrypt(value, path)
        print(f"the key {path} opens this value", file=sys.stderr)


def _ask(prompt: str) -> str:
    """Never from the arguments: every user of the machine can read those."""
    value = getpass.getpass(prompt) if sys.stdin.isatty() else sys.stdin.read().removesuffix("\n")
    if not value:
        raise SecretError("expected a value on standard input, found none")
    return value


if __name__ == "__main__":
    main()

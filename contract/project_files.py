"""Where the files of projects lie below FILES_DIR, for distribute, which writes them, and the engines, which read.

    FILES_DIR/.share                         says that this is the share: the engines look for it
    FILES_DIR/PROJECT                        a link to the version that was cloned last, for people
    FILES_DIR/.versions/PROJECT/COMMIT/      one version: never changed, only removed
    FILES_DIR/.versions/PROJECT/.COMMIT      holds the commit, and is there when all of the version is

A project's name may have slashes. No part of it begins with a dot, so that it meets none of these names.
"""

from __future__ import annotations

from pathlib import Path

SHARE_MARK = ".share"
VERSIONS = ".versions"


def version(files_dir: Path, project: str, commit: str) -> Path:
    return files_dir / VERSIONS / project / commit


def version_mark(files_dir: Path, project: str, commit: str) -> Path:
    return files_dir / VERSIONS / project / f".{commit}"

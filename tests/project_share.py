"""A share as distribute leaves it: versions of projects, and the links that show the last one."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from contract import project_files
from distribute.project_tree import Tree

A, B, C = "a" * 40, "b" * 40, "c" * 40  # commits


def add_version(files_dir: Path, project: str, commit: str, files: Mapping[str, str]) -> Path:
    """Lay out one version, have the project's link show it, and return its folder."""
    folder = project_files.version(files_dir, project, commit)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    project_files.version_mark(files_dir, project, commit).write_text(commit)
    link = files_dir / project
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(folder, link.parent))
    mark_share(files_dir)
    return folder


def mark_share(files_dir: Path) -> None:
    files_dir.mkdir(parents=True, exist_ok=True)
    (files_dir / project_files.SHARE_MARK).write_text("the share of the tests\n")


def publish(tree: Tree, project: str, commit: str, files: Mapping[str, str]) -> None:
    """The same by distribute itself, in the steps of a clone."""
    with tree.locked(project):
        made = tree.new_version(project)
        for name, text in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_text(text)
        tree.adopt(made, project, commit, time.monotonic() + 60)
        tree.show(project, commit)
    tree.share()

"""Which files of the engine a client's text reads: those of the share. It writes none.

Ansible turns a path into a file in one place, the data loader: Files is that place here. Few parts of Ansible open
paths that no data loader has seen; each of them is hooked by install(), at run time, whatever text led there:

    {% include %} and {% import %}     read what lies on a search path that is a variable
    include_vars of a directory        walks through it
    a role                             follows links before a data loader sees it
    group_vars, host_vars              follows links, and looks whether a task needs files or not
    copy of a directory                names what it makes after the folder that it has found
    fetch                              writes

A path into a project means the version of it that the task sees: Files.path_dwim says which file that is, and so do
the hooks, by Share.seen(). Names that begin with a dot, directly below the share, are the service's own.

Paths are compared when all symbolic links are resolved. Whoever can change the share between the look and the reading
wins; the runner's user should be one that may read nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import ansible
from ansible import playbook
from ansible._internal._templating import _jinja_bits
from ansible.errors import AnsibleFileNotFound, AnsibleParserError
from ansible.parsing import dataloader
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.role.definition import RoleDefinition
from ansible.plugins.action import copy, fetch, include_vars
from ansible.plugins.vars import host_group_vars
from jinja2 import Environment, FileSystemLoader, TemplateNotFound
from jinja2.loaders import split_template_path

from contract import project_files
from execute_engine.fence.hooks import Refused, hook
from execute_engine.fence.versions import Versions

COLLECTIONS = str(Path(ansible.__file__).parent.parent / "ansible_collections")  # of the pinned package: their roles
MOMENT_SECONDS = 1.0  # a read that takes no longer hangs nobody


class SearchRefused(Refused, AnsibleParserError):  # type: ignore[misc]
    """The same; vars_files would lose any other error's text."""


class Share:
    """The files that a client's text may read."""

    def __init__(
        self, files_dir: str, scratch: str, projects: Mapping[str, str] | None = None, is_needed: bool = True
    ) -> None:
        """scratch: the runner's own directory, where Ansible puts the files that it makes. projects: as in a Job.

        Unless it is needed the share is not touched, which may hang, before a path leads there.
        """
        self.files_dir = files_dir
        self.is_needed = is_needed
        self._others = (scratch, COLLECTIONS)
        versions = Versions(files_dir, projects or {}, is_needed)
        self.seen = versions.seen
        self.shown = versions.shown
        self._reading: tuple[str, float] | None = None  # what the main thread reads now, and since when

    @contextlib.contextmanager
    def reads(self, path: str | bytes) -> Iterator[None]:
        """Around a read that may hang. In a worker's thread the task that runs is to blame, and is known."""
        if self._reading is not None or threading.current_thread() is not threading.main_thread():
            yield
            return
        self._reading = (self.shown(path), time.monotonic())
        try:
            yield
        finally:
            self._reading = None

    def hangs_at(self) -> str | None:
        """What all hosts of the unit wait for, while the main thread reads a file for more than a moment."""
        if (reading := self._reading) is None or (seconds := time.monotonic() - reading[1]) < MOMENT_SECONDS:
            return None
        return f"the engine, which was reading {reading[0]} for {seconds:.0f} s"

    def check(self, *paths: str | bytes, named: str = "") -> None:
        """Raises Refused for a path that leads out of the share, whether there is a file or not.

        named: what the sentence calls it, where the path itself is what was to be found out.
        """
        for path in map(os.fsdecode, paths):
            real = os.path.realpath(path)
            if path == os.devnull or any(_is_below(real, root) for root in self._others):
                continue
            if not _is_below(real, self.files_dir):
                raise Refused(
                    f"{named or self.shown(path)} is refused: on the engine only files below {self.files_dir} are read"
                )
            if self._is_own(real):
                raise Refused(
                    f"{named or self.shown(path)} is refused: on the engine nothing is read whose name, directly below "
                    f"{self.files_dir}, begins with a dot"
                )

    def _is_own(self, real: str) -> bool:
        """What distribute keeps beside the projects; its git mirrors may hold what a project does not show any more."""
        name = real.removeprefix(os.path.realpath(self.files_dir)).lstrip("/").split("/")[0]
        return name.startswith(".") and name != project_files.VERSIONS


def _checked(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def method(self: Files, path: str, *args: Any, **kwargs: Any) -> Any:
        with self.share.reads(path):
            self.share.check(self.path_dwim(path))
            return plain(self, path, *args, **kwargs)

    return method


class Files(DataLoader):  # type: ignore[misc]
    """Files as Ansible reads them: of the share only, and of the versions that the task sees."""

    def __init__(self, share: Share) -> None:
        super().__init__()
        self.share = share
        self.set_basedir(share.files_dir)

    path_exists = _checked(DataLoader.path_exists)
    is_file = _checked(DataLoader.is_file)
    is_directory = _checked(DataLoader.is_directory)
    is_executable = _checked(DataLoader.is_executable)
    list_directory = _checked(DataLoader.list_directory)
    get_real_file = _checked(DataLoader.get_real_file)
    _get_file_contents = _checked(DataLoader._get_file_contents)

    def path_dwim(self, given: str) -> str:
        return self.share.seen(super().path_dwim(given))

    def path_dwim_relative(self, path: str, *args: Any, **kwargs: Any) -> str:
        with self.share.reads(path):
            return self.share.seen(super().path_dwim_relative(self.share.shown(path), *args, **kwargs))

    def path_dwim_relative_stack(self, paths: list[str], dirname: str, source: str, *args: Any, **kwargs: Any) -> str:
        """What is not there is no less refused: else it would tell which files are."""
        paths = [self.share.shown(path) for path in paths]  # so that ../ leads from one project to another
        try:
            with self.share.reads(source):
                found = self.share.seen(super().path_dwim_relative_stack(paths, dirname, source, *args, **kwargs))
        except AnsibleFileNotFound as error:
            self._check_search(self.path_dwim(source), *(error.paths or ()))
            raise
        self._check_search(found)
        return found

    def _check_search(self, *paths: str) -> None:
        try:
            self.share.check(*paths)
        except Refused as error:
            raise SearchRefused(error.message) from None


class _Os:
    """The module os, but path.exists() looks where Share.seen() says."""

    def __init__(self, share: Share) -> None:
        self.path = _OsPath(share)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


class _OsPath:
    def __init__(self, share: Share) -> None:
        self._share = share

    def exists(self, path: str | bytes) -> bool:
        return os.path.exists(self._share.seen(path))

    def __getattr__(self, name: str) -> Any:
        return getattr(os.path, name)


def install(share: Share) -> None:
    """For this process and its forks, for good. Raises KeyError where this ansible-core has no such method."""

    class Templates(FileSystemLoader):
        def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
            for folder in self.searchpath:
                path = share.seen(os.path.join(folder, *split_template_path(template)))
                if os.path.isfile(path):
                    share.check(path)
                    return FileSystemLoader(os.path.dirname(path)).get_source(environment, os.path.basename(path))
            raise TemplateNotFound(template)

    def set_root_dir(plain: Callable[..., None], action: Any) -> None:
        plain(action)
        action.source_dir = share.seen(action.source_dir)
        share.check(action.source_dir)

    def load_role_path(plain: Callable[..., Any], role: Any, *args: Any) -> Any:
        name, path = plain(role, *args)
        return name, share.seen(path)

    def walk_dirs(plain: Callable[..., Any], topdir: str, *args: Any, **kwargs: Any) -> Any:
        """A whole project is copied into a folder of its own name, not of its commit's."""
        found = plain(topdir, *args, **kwargs)
        folder, name = os.path.basename(topdir), os.path.basename(share.shown(topdir))
        if not folder or folder == name:
            return found
        return {
            kind: [(source, name + made.removeprefix(folder)) for source, made in entries]
            for kind, entries in found.items()
        }

    def add_plugin_dirs(plain: Callable[..., None], path: str) -> None:
        if share.is_needed or path != share.files_dir:
            plain(path)

    def get_vars(plain: Callable[..., Any], plugin: Any, loader: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        """group_vars and host_vars beside a playbook: the plugin itself follows links, and looks at each task."""
        return plain(plugin, loader, share.seen(path), *args, **kwargs) if share.is_needed else {}

    def run_fetch(plain: Callable[..., Any], action: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise Refused("fetch is refused: it writes on the engine; slurp returns a file's content")

    dataloader.os = _Os(share)
    _jinja_bits.FileSystemLoader = Templates
    hook(include_vars.ActionModule, "_set_root_dir", set_root_dir)
    hook(RoleDefinition, "_load_role_path", load_role_path)
    hook(copy, "_walk_dirs", walk_dirs)
    hook(playbook, "add_all_plugin_dirs", add_plugin_dirs)
    hook(host_group_vars.VarsModule, "get_vars", get_vars)
    hook(fetch.ActionModule, "run", run_fetch)


def _is_below(path: str, root: str) -> bool:
    root = os.path.realpath(root)
    return path == root or path.startswith(root.rstrip("/") + "/")

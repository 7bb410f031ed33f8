"""Which files of the engine a client's text reads: those of the share. It writes none.

Ansible turns a path into a file in one place, the data loader: Files is that place here. Few parts of Ansible open
paths that no data loader has seen; each of them is hooked by install(), at run time, whatever text led there:

    {% include %} and {% import %}     read what lies on a search path that is a variable
    include_vars of a directory        walks through it
    fetch                              writes

Paths are compared when all symbolic links are resolved. Whoever can change the share between the look and the reading
wins; the runner's user should be one that may read nothing else.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import ansible
from ansible._internal._templating import _jinja_bits
from ansible.errors import AnsibleFileNotFound, AnsibleParserError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.action import fetch, include_vars
from jinja2 import Environment, FileSystemLoader

from execute_engine.fence.hooks import Refused, hook

COLLECTIONS = str(Path(ansible.__file__).parent.parent / "ansible_collections")  # of the pinned package: their roles


class SearchRefused(Refused, AnsibleParserError):  # type: ignore[misc]
    """The same; vars_files would lose any other error's text."""


class Share:
    """The files that a client's text may read."""

    def __init__(self, files_dir: str, scratch: str) -> None:
        """scratch: the runner's own directory, where Ansible puts the files that it makes."""
        self.files_dir = files_dir
        self._roots = (files_dir, scratch, COLLECTIONS)

    def check(self, *paths: str | bytes, named: str = "") -> None:
        """Raises Refused for a path that leads out of the share, whether there is a file or not.

        named: what the sentence calls it, where the path itself is what was to be found out.
        """
        for path in map(os.fsdecode, paths):
            real = os.path.realpath(path)
            if path != os.devnull and not any(_is_below(real, root) for root in self._roots):
                raise Refused(f"{named or path} is refused: on the engine only files below {self.files_dir} are read")


def _checked(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def method(self: Files, path: str, *args: Any, **kwargs: Any) -> Any:
        self.share.check(self.path_dwim(path))
        return plain(self, path, *args, **kwargs)

    return method


class Files(DataLoader):  # type: ignore[misc]
    """Files as Ansible reads them, of the share only; where projects get versions, path_dwim() maps names to them."""

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

    def path_dwim_relative_stack(self, paths: list[str], dirname: str, source: str, *args: Any, **kwargs: Any) -> str:
        """What is not there is no less refused: else it would tell which files are."""
        try:
            found = os.fsdecode(super().path_dwim_relative_stack(paths, dirname, source, *args, **kwargs))
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


def install(share: Share) -> None:
    """For this process and its forks, for good. Raises KeyError where this ansible-core has no such method."""

    class Templates(FileSystemLoader):
        def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
            found = super().get_source(environment, template)
            share.check(found[1])
            return found

    def set_root_dir(plain: Callable[..., None], action: Any) -> None:
        plain(action)
        share.check(action.source_dir)

    def run_fetch(plain: Callable[..., Any], action: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise Refused("fetch is refused: it writes on the engine; slurp returns a file's content")

    _jinja_bits.FileSystemLoader = Templates
    hook(include_vars.ActionModule, "_set_root_dir", set_root_dir)
    hook(fetch.ActionModule, "run", run_fetch)


def _is_below(path: str, root: str) -> bool:
    root = os.path.realpath(root)
    return path == root or path.startswith(root.rstrip("/") + "/")

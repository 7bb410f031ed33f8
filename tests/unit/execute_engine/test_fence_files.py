"""What the fence around controller files is made of: paths compared when resolved, and a list of who opens what.

The ways through a whole run are in tests/integration/test_fence_files.py.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import ansible
import pytest
from ansible.errors import AnsibleFileNotFound
from ansible.parsing.dataloader import DataLoader

from execute_engine.fence.files import COLLECTIONS, Files, Refused, Share
from execute_engine.fence.lookups import JINJA_COLLECTIONS, JINJA_OF_PATHS, JINJA_REFUSED, LOOKUPS

PLUGINS = Path(ansible.__file__).parent / "plugins"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Of a share with a file `in` and links to what lies beside it."""
    share = tmp_path / "share"
    share.mkdir()
    (tmp_path / "scratch").mkdir()
    (tmp_path / "share-too").write_text("outside")
    (tmp_path / "out").write_text("outside")
    (share / "in").write_text("inside")
    (share / "link").symlink_to(tmp_path / "out")
    (share / "folder").symlink_to(tmp_path)
    (share / "inner").symlink_to(share / "in")
    (share / "dangling").symlink_to(tmp_path / "nothing")
    (share / "loop").symlink_to(share / "loop")
    return Files(Share(str(share), str(tmp_path / "scratch")))


OUTSIDE = (
    "../out",
    "../share-too",
    "../none",
    "link",
    "folder/out",
    "folder",
    "dangling",
    "in/../../out",
    "/etc/passwd",
)
INSIDE = ("in", "inner", "./in", "none", "loop", "../share/in", "folder/share/in", "../scratch/x", os.devnull)
METHODS: dict[str, Callable[[Files, str], object]] = {
    "path_exists": Files.path_exists,
    "is_file": Files.is_file,
    "is_directory": Files.is_directory,
    "is_executable": Files.is_executable,
    "list_directory": Files.list_directory,
    "get_real_file": Files.get_real_file,
    "get_text_file_contents": Files.get_text_file_contents,
    "load_from_file": Files.load_from_file,
    "find_vars_files": lambda files, path: files.find_vars_files(files.get_basedir(), path),
    "path_dwim_relative_stack": lambda files, path: files.path_dwim_relative_stack(
        [files.get_basedir()], "files", path
    ),
}


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("method", METHODS)
def test_what_leads_out_of_the_share_is_refused(files: Files, method: str, path: str) -> None:
    with pytest.raises(Refused, match=r"on the engine only files below .*/share are read"):
        METHODS[method](files, path)


@pytest.mark.parametrize("path", INSIDE)
def test_what_stays_in_the_share_is_not(files: Files, path: str) -> None:
    files.share.check(files.path_dwim(path))
    files.path_exists(path)


def test_files_of_the_share_are_read(files: Files) -> None:
    assert files.get_text_file_contents("in") == "inside"
    assert files.get_text_file_contents("inner") == "inside"
    with pytest.raises(AnsibleFileNotFound):
        files.path_dwim_relative_stack([files.get_basedir()], "files", "none")


def test_a_share_behind_a_link_is_the_share(files: Files, tmp_path: Path) -> None:
    (tmp_path / "mount").symlink_to(tmp_path / "share")
    linked = Share(str(tmp_path / "mount"), str(tmp_path / "scratch"))
    linked.check(f"{tmp_path}/mount/in", f"{tmp_path}/share/in")
    with pytest.raises(Refused):
        linked.check(f"{tmp_path}/mount/link")


def test_roles_of_the_pinned_collections_are_read(files: Files) -> None:
    files.share.check(f"{COLLECTIONS}/community/general/README.md")
    assert Path(COLLECTIONS, "community/general").is_dir()


def test_every_method_of_the_loader_that_opens_a_path_is_known() -> None:
    """One that a newer ansible-core has would have to be checked as well."""
    tree = ast.parse(Path(PLUGINS.parent / "parsing/dataloader.py").read_text())
    methods = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    opening = {name for name, node in methods.items() if _opens(node)}
    unlooked = {"path_dwim_relative", "_is_role", "cleanup_tmp_file", "_create_content_tempfile"}
    assert opening - unlooked == {
        *("path_exists", "is_file", "is_directory", "is_executable", "list_directory"),
        *("_get_file_contents", "get_real_file", "path_dwim_relative_stack"),
    }
    assert all(vars(Files)[name] is not vars(DataLoader)[name] for name in opening - unlooked)


OPENING = {  # plugins of ansible.builtin that look at local paths without the loader, and why that is shut
    "action/__init__": "what it opens and uploads, it was given by one of UPLOADING",
    "action/assemble": "in a folder that the loader has found, by the loader",
    "action/copy": "in a folder that the loader has found; what it takes from it, by the loader",
    "action/fetch": "hooked",
    "action/include_vars": "its folder is hooked, its files are the loader's",
    "action/template": "a file that the loader has found, and one of its own",
    "action/unarchive": "only ~ of a path that the loader finds",
    "lookup/csvfile": "a file that the loader has found",
    "lookup/env": "not allowed",
    "lookup/fileglob": "hooked",
    "lookup/lines": "not allowed",
    "lookup/password": "hooked",
    "lookup/pipe": "not allowed",
    "lookup/url": "not allowed",
    "filter/core": "hooked: fileglob, realpath; not allowed: expandvars, expanduser",
    "test/core": "hooked: vaulted_file",
    "test/files": "hooked",
}


UPLOADING = {  # action plugins that may run, and upload a file: the loader has found it, or they have made it
    "action/__init__", "action/assemble", "action/copy", "action/script", "action/unarchive", "action/uri", "patch",
}  # fmt: skip


def test_every_action_that_uploads_a_file_is_known() -> None:
    """Nothing looks at the file once more; template uploads by copy."""
    plugins = {f"action/{path.stem}": path for path in (PLUGINS / "action").glob("*.py")}
    plugins["patch"] = Path(COLLECTIONS, "ansible/posix/plugins/action/patch.py")
    for name in ("iptables_state", "shutdown"):
        plugins[name] = Path(COLLECTIONS, f"community/general/plugins/action/{name}.py")
    found = set()
    for name, path in plugins.items():
        called = {_name(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
        if called & {"_transfer_file", "put_file"}:
            found.add(name)
    assert found == UPLOADING


def test_every_plugin_that_opens_a_path_itself_is_known() -> None:
    found = set()
    for kind in ("action", "lookup", "filter", "test"):
        for path in (PLUGINS / kind).glob("*.py"):
            if _opens(ast.parse(path.read_text())):
                found.add(f"{kind}/{path.stem}")
    assert found == set(OPENING)


def test_every_lookup_of_ansible_is_decided() -> None:
    shipped = {f"ansible.builtin.{path.stem}" for path in (PLUGINS / "lookup").glob("[a-z]*.py")}
    refused = {f"ansible.builtin.{name}" for name in ("config", "env", "lines", "pipe", "url")}
    assert {name for name in LOOKUPS if name.startswith("ansible.builtin.")} == shipped - refused


def test_every_filter_and_test_that_opens_a_path_is_known() -> None:
    """Of the collections whose filters and tests are allowed; what they import of their own collection counts."""
    found = set()
    for name in JINJA_COLLECTIONS[1:]:
        folder = Path(COLLECTIONS, *name.split("."))
        for kind in ("filter", "test"):
            for path in (folder / f"plugins/{kind}").glob("[a-z]*.py"):
                if any(_opens(ast.parse(source.read_text())) for source in _with_imports(path, {path})):
                    found.add(f"{kind} {name}.{path.stem}")
    assert found - JINJA_REFUSED == set()
    assert not JINJA_REFUSED & JINJA_OF_PATHS


_OF_OS = {"environ", "listdir", "lstat", "makedirs", "open", "scandir", "stat", "walk", "unlink", "remove"}
_OF_PATHS = {"exists", "expanduser", "expandvars", "isdir", "isfile", "islink", "lexists", "realpath", "samefile"}
_CALLS = {"open", "open_url", "makedirs_safe", "is_executable", "read_bytes", "read_text", "run_command"}


def _opens(tree: ast.AST) -> bool:
    """Whether code names something that looks at the machine it runs on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in _CALLS:
            return True
        if isinstance(node, ast.Attribute) and node.attr in _OF_PATHS | _OF_OS and _name(node.value) in ("os", "path"):
            return True
        if isinstance(node, ast.Attribute) and _name(node.value) in ("glob", "subprocess", "shutil", "os.environ"):
            return True
        if isinstance(node, ast.ImportFrom) and node.module in ("os.path", "os", "subprocess", "shutil", "glob"):
            return True
    return False


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _with_imports(path: Path, seen: set[Path]) -> Iterator[Path]:
    yield path
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ansible_collections."):
            base = Path(COLLECTIONS, *(node.module or "").split(".")[1:])
            for candidate in (base.with_suffix(".py"), *(base / f"{alias.name}.py" for alias in node.names)):
                if candidate.is_file() and candidate not in seen:
                    seen.add(candidate)
                    yield from _with_imports(candidate, seen)

"""In a process of its own: what is built stays for good, and Ansible's loaders are the process's."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

BUILT = ("command", "stat")
NOT_BUILT = "tempfile"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("payloads")
    printed = subprocess.run(
        [sys.executable, "-m", __name__, str(directory)], check=True, capture_output=True, timeout=120, text=True
    )
    found: dict[str, Any] = json.loads(printed.stdout)
    return found


def files(payload: str) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(payload))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("module", BUILT)
def test_a_payload_that_was_built_before_is_the_one_that_ansible_builds(seen: dict[str, Any], module: str) -> None:
    ours = files(seen["ours"][f"ansible.modules.{module}-ZIP_DEFLATED-none"])
    assert ours == files(seen["stock"][f"ansible.modules.{module}-ZIP_DEFLATED-none"])
    assert any(name.endswith("basic.py") for name in ours)


def test_no_runner_builds_it_again(seen: dict[str, Any]) -> None:
    assert seen["builds in a runner"] == {**dict.fromkeys(BUILT, 0), NOT_BUILT: 1}


def test_what_a_runner_builds_it_keeps(seen: dict[str, Any]) -> None:
    assert seen["builds for a second host"] == 0


def _watch(directory: Path) -> dict[str, Any]:
    from execute_engine import preloading

    preloading.load()
    from ansible import constants
    from ansible.executor import module_common

    from execute_engine import payloads

    payloads._built.clear()
    kept = module_common._CachedModule
    module_common._CachedModule = kept.__mro__[1]
    constants.DEFAULT_LOCAL_TMP = str(directory / "stock")
    for name in BUILT:
        payloads._build(name)
    stock = {
        path.name: kept.__mro__[1].load(str(path)).zip_data.decode()
        for path in (directory / "stock" / "ansiballz_cache").iterdir()
        if not path.name.endswith(".lock")
    }

    constants.DEFAULT_LOCAL_TMP = str(directory / "launcher")
    payloads.build(BUILT)
    ours = {name: built.zip_data.decode() for name, built in payloads._built.items()}

    find, builds = module_common.recursive_finder, []
    module_common.recursive_finder = lambda name, *rest: builds.append(name) or find(name, *rest)
    runner = directory / "runner"
    runner.mkdir()
    constants.DEFAULT_LOCAL_TMP = str(runner)
    payloads.offer(runner)
    for name in (*BUILT, NOT_BUILT):
        payloads._build(name)
    first = {name: builds.count(name) for name in (*BUILT, NOT_BUILT)}
    builds.clear()
    payloads._build(NOT_BUILT)
    return {"stock": stock, "ours": ours, "builds in a runner": first, "builds for a second host": len(builds)}


if __name__ == "__main__":
    print(json.dumps(_watch(Path(sys.argv[1]))))

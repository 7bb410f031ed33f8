"""What the fence decides by names alone; on real hosts: tests/integration/test_fence_places.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from execute_engine.fence.hooks import hook
from execute_engine.fence.places import Places, Refused

FACTS = {"ansible_port": 22, "ansible_user": "ops"}


def fence(allow_local: bool = False, connection: str = "fleet_ssh") -> Places:
    return Places(["10.0.0.1", "10.0.0.2"], connection, FACTS, allow_local)


def options(connection: object, given: dict[str, Any]) -> dict[str, Any]:
    """What a connection is told when Ansible tells it this."""
    told: dict[str, Any] = {}
    fence()._set_options(lambda self, **more: told.update(more), connection, {"port": 1}, given)
    assert told["task_keys"] == {"port": 1}
    found: dict[str, Any] = told["var_options"]
    return found


@pytest.mark.parametrize("name", ["ssh", "smart", "ansible.builtin.ssh", "ansible.legacy.ssh", "fleet_ssh"])
def test_what_playbooks_call_ssh_is_the_engines_own_connection(name: str) -> None:
    assert fence()._connection_named(name) == "fleet_ssh"
    assert fence(connection="ssh")._connection_named("ssh") == "ssh"


@pytest.mark.parametrize("name", ["local", "ansible.builtin.local", "paramiko_ssh", "../ssh", "evil.ssh", "", None])
def test_every_other_connection_is_refused(name: Any) -> None:
    with pytest.raises(Refused, match="is refused"):
        fence()._connection_named(name)


def test_where_it_is_allowed_local_is_local_and_nothing_else_is() -> None:
    assert fence(allow_local=True)._connection_named("ansible.builtin.local") == "local"
    with pytest.raises(Refused):
        fence(allow_local=True)._connection_named("community.docker.docker")


def test_a_connection_is_told_the_engines_facts_its_own_host_and_how_to_behave() -> None:
    connection = SimpleNamespace(_load_name="fleet_ssh", fenced_host="10.0.0.2")
    given = {"inventory_hostname": "10.0.0.1", "ansible_host": "evil", "ansible_port": 1, "ansible_ssh_use_tty": False}
    assert options(connection, given) == {**FACTS, "inventory_hostname": "10.0.0.2", "ansible_ssh_use_tty": False}


def test_one_that_is_only_reset_keeps_the_inventorys_host() -> None:
    connection = SimpleNamespace(_load_name="fleet_ssh")
    assert options(connection, {"inventory_hostname": "10.0.0.1", "ansible_host": "x"})["inventory_hostname"] == (
        "10.0.0.1"
    )


def test_an_ansible_without_the_place_for_a_hook_is_not_run() -> None:
    with pytest.raises(KeyError):
        hook(SimpleNamespace, "not_there", lambda plain: None)

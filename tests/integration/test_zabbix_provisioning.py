"""Zabbix set up by our command, against a real server, its web pages and its API."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from contract.config import ZabbixSettings
from contract.zabbix import Trapper
from execute_engine.errors import ProvisionError
from execute_engine.zabbix import items, provisioning, template_file, turn
from execute_engine.zabbix.api import Api
from execute_engine.zabbix.items import DISTRIBUTE, ENGINE
from tests.servers.process import free_ports, wait_for
from tests.servers.zabbix import PASSWORD, USER, Zabbix

NAMES = [template.name for template in items.TEMPLATES]
MADE = (
    *(f"template {name}" for name in NAMES),
    "host group Execute Engine",
    "host engine-1",
    "dashboard Execute Engine fleet",
)
SHIPPED = Path(__file__).parents[2] / "conf/zabbix/execute-engine.yaml"
# Small enough for a test, and as large as Zabbix's own clock allows.
SOON = {
    "{$EXEC.FULL.PERIOD}": "4s",
    "{$EXEC.SPOOL.PERIOD}": "4s",
    "{$EXEC.TIMEOUTS.PERIOD}": "10s",
    "{$EXEC.ERRORS.PERIOD}": "10s",
    "{$EXEC.RESTARTS.PERIOD}": "10s",
    "{$EXEC.SILENCE}": "30s",
}
BAD = {
    "exec.engine.consumer": 0,
    "exec.engine.restarts": 1,
    "exec.engine.slots": 100,
    "exec.engine.slots_used": 95,
    "exec.engine.share": 0,
    "exec.engine.database": 0,
    "exec.engine.kafka": 0,
    "exec.engine.hosts_finished": 100,
    "exec.engine.hosts_timed_out": 6,
    "exec.engine.unkillable": 1,
    "exec.engine.braked": 1,
    "exec.distribute.leader": 0,
    "exec.distribute.errors": 6,
    "exec.distribute.oldest_unit_seconds": 1801,
}
OF_THE_LIVING = {
    "Engine: consumer is stuck",
    "Engine: share is not seen",
    "Engine: database is away",
    "Engine: Kafka is away",
    "Engine: unkillable processes",
    "Engine: braked",
}
GOOD = {
    "exec.engine.ping": 1,
    "exec.engine.consumer": 1,
    "exec.engine.restarts": 0,
    "exec.engine.slots": 100,
    "exec.engine.slots_used": 80,
    "exec.engine.spooled": 0,
    "exec.engine.share": 1,
    "exec.engine.database": 1,
    "exec.engine.kafka": 2,
    "exec.engine.hosts_finished": 100,
    "exec.engine.hosts_timed_out": 5,
    "exec.engine.unkillable": 0,
    "exec.engine.braked": 0,
    "exec.distribute.ping": 1,
    "exec.distribute.leader": 1,
    "exec.distribute.errors": 0,
    "exec.distribute.oldest_unit_seconds": 1800,
}


@pytest.fixture
def api(zabbix: Zabbix) -> Any:
    """Of a Zabbix that knows nothing of us yet."""
    api = zabbix.api()
    for kind, identifier, filtered in (
        ("host", "hostid", {"groupids": [group["groupid"] for group in _groups(api, items.HOST_GROUP)]}),
        ("dashboard", "dashboardid", {"filter": {"name": [provisioning.DASHBOARD]}}),
        ("template", "templateid", {"filter": {"host": NAMES}}),
    ):
        found = [each[identifier] for each in api[kind].get(output=[identifier], **filtered)]
        if found:
            api[kind].delete(*found)
    groups = _groups(api, items.HOST_GROUP, items.TEMPLATE_GROUP)
    if groups:
        api.hostgroup.delete(*(group["groupid"] for group in groups))
    assert not _turns(api)
    return api


def _turns(api: Any) -> list[dict[str, str]]:
    found: list[dict[str, str]] = api.usermacro.get(globalmacro=True, filter={"macro": turn.MACRO}, output="extend")
    return found


def _groups(api: Any, *names: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = api.hostgroup.get(filter={"name": list(names)}, output=["groupid"])
    return found


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return _config(tmp_path, "engine-1")


def _config(directory: Path, host: str) -> Path:
    file = directory / "conf" / "server.conf"
    file.parent.mkdir(parents=True)
    file.write_text(f"[Zabbix]\nHOST = {host}\n[Data_Send]\nZABBIX = 20\n")
    return file


def _host(api: Any, name: str) -> dict[str, Any]:
    (host,) = api.host.get(
        filter={"host": [name]}, output="extend", selectGroups=["name"], selectMacros=["macro", "value"],
        selectParentTemplates=["host"], selectInterfaces=["dns"],
    )  # fmt: skip
    found: dict[str, Any] = host
    return found


def _each(found: list[dict[str, str]], name: str) -> set[str]:
    return {each[name] for each in found}


def _macros(host: dict[str, Any]) -> dict[str, str]:
    return {each["macro"]: each["value"] for each in host["macros"]}


def _did(what: str, *names: str) -> str:
    return "".join(f"{what:9} {name}\n" for name in names)


def test_it_makes_all_there_is_and_a_second_time_changes_nothing(api: Any, zabbix: Zabbix, config: Path) -> None:
    assert zabbix.provision(config) == _did("created", *MADE)
    host = _host(api, "engine-1")
    assert _each(host["groups"], "name") == {"Execute Engine"}
    assert _each(host["parentTemplates"], "host") == {ENGINE.name}
    assert _macros(host) == {"{$EXEC.SILENCE}": "60s"}
    known = api.item.get(hostids=host["hostid"], output=["key_"])
    assert _each(known, "key_") == {item.key for item in ENGINE.items}
    watched = api.trigger.get(hostids=host["hostid"], output=["description"])
    assert _each(watched, "description") == {trigger.name for trigger in ENGINE.triggers}
    assert zabbix.provision(config) == _did("unchanged", *MADE)


def test_machines_that_provision_at_the_same_moment_make_one_of_each(api: Any, zabbix: Zabbix, tmp_path: Path) -> None:
    hosts = [f"engine-{number}" for number in range(1, 5)]
    configs = [_config(tmp_path / host, host) for host in hosts]
    with ThreadPoolExecutor(len(hosts)) as machines:
        said = list(machines.map(zabbix.provision, configs))

    for host, lines in zip(hosts, said, strict=True):
        assert _did("created", f"host {host}") in lines
    for what in set(MADE) - {"host engine-1"}:
        assert "".join(said).count(_did("created", what)) == 1, said
        assert "".join(said).count(_did("unchanged", what)) == len(hosts) - 1, said
    assert len(_groups(api, items.HOST_GROUP, items.TEMPLATE_GROUP)) == 2
    assert len(api.template.get(filter={"host": NAMES})) == len(NAMES)
    assert len(api.dashboard.get(filter={"name": [provisioning.DASHBOARD]})) == 1
    assert _each(api.host.get(filter={"host": hosts}, output=["host"]), "host") == set(hosts)
    assert not _turns(api)


def test_a_turn_is_waited_for_and_one_that_was_never_given_back_ends_by_itself(
    api: Any, zabbix: Zabbix, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = provisioning.Host("engine-1", (ENGINE.name,), 20)
    ours = Api(zabbix.url, USER, PASSWORD)
    interrupted = provisioning.provision(ours, host)
    next(interrupted)
    assert [found["value"] for found in _turns(api)] == ["engine-1"]
    interrupted.close()
    assert not _turns(api)

    api.usermacro.createglobal(macro=turn.MACRO, value="engine-0")
    monkeypatch.setattr(turn, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(ProvisionError, match="expected our turn within 0 s, found others at work"):
        list(provisioning.provision(ours, host))
    assert [found["value"] for found in _turns(api)] == ["engine-0"]
    monkeypatch.undo()
    monkeypatch.setattr(turn, "DEAD_SECONDS", 1.0)
    done = list(provisioning.provision(ours, host))
    assert done[0] == ("waits", "for the provisioning of engine-0")
    assert ("created", "host engine-1") in done
    assert not _turns(api)


def test_what_was_changed_is_put_right_and_what_is_not_ours_stays(api: Any, zabbix: Zabbix, config: Path) -> None:
    zabbix.provision(config)
    host = _host(api, "engine-1")
    group = api.hostgroup.get(filter={"name": ["Linux servers"]}, output=["groupid"])
    api.host.update(
        hostid=host["hostid"], groups=group,
        interfaces=[{"type": 1, "main": 1, "useip": 0, "dns": "engine-1", "ip": "", "port": "10050"}],
        macros=[{"macro": "{$OWN}", "value": "1"}],
    )  # fmt: skip
    (template,) = api.template.get(filter={"host": [ENGINE.name]}, output=["templateid"])
    (trigger,) = api.trigger.get(
        templateids=template["templateid"], filter={"description": ["Engine: no ping"]}, output=["triggerid"]
    )
    api.trigger.update(triggerid=trigger["triggerid"], priority=0)
    (dashboard,) = api.dashboard.get(filter={"name": [provisioning.DASHBOARD]}, output=["dashboardid"])
    api.dashboard.update(dashboardid=dashboard["dashboardid"], pages=[{"widgets": []}])

    said = zabbix.provision(config, runs="both")
    assert said == _did("updated", *MADE[:2]) + _did("unchanged", MADE[2]) + _did("updated", *MADE[3:])
    host = _host(api, "engine-1")
    assert _each(host["groups"], "name") == {"Linux servers", "Execute Engine"}
    assert _each(host["parentTemplates"], "host") == {ENGINE.name, DISTRIBUTE.name}
    assert _each(host["interfaces"], "dns") == {"engine-1"}
    assert _macros(host) == {"{$OWN}": "1", "{$EXEC.SILENCE}": "60s"}
    (mended,) = api.trigger.get(triggerids=trigger["triggerid"], output=["priority"])
    assert mended["priority"] == "4"
    assert zabbix.provision(config, runs="both") == _did("unchanged", *MADE)


def test_the_file_imported_by_hand_is_the_same(api: Any, zabbix: Zabbix, config: Path) -> None:
    arguments = {"format": "yaml", "source": SHIPPED.read_text(), "rules": template_rules()}
    assert api.configuration["import"](**arguments) is True
    assert zabbix.provision(config).startswith(_did("unchanged", *MADE[:2]))
    ids = [each["templateid"] for each in api.template.get(filter={"host": NAMES}, output=["templateid"])]
    exported = yaml.safe_load(api.configuration.export(format="yaml", options={"templates": ids}))
    assert _without_order(exported) == _without_order(yaml.safe_load(template_file.text()))


def template_rules() -> dict[str, dict[str, bool]]:
    """What the import page has ticked by itself."""
    ticked = {"createMissing": True, "updateExisting": True}
    return dict.fromkeys(("groups", "templates", "items", "triggers", "valueMaps"), ticked)


def _without_order(node: Any) -> Any:
    """Zabbix sorts what it exports by ids, writes the hour, and leaves out what is 0 anyway."""
    if isinstance(node, dict):
        return {name: _without_order(value) for name, value in node.items() if name != "date"}
    if isinstance(node, list):
        return sorted((_without_order(each) for each in node), key=repr)
    return node


@pytest.fixture
def powerless(zabbix: Zabbix) -> str:
    """A user who may look."""
    api = zabbix.api()
    if not api.user.get(filter={"username": "powerless"}, output=["userid"]):
        (role,) = api.role.get(filter={"name": ["User role"]}, output=["roleid"])
        (group,) = api.usergroup.get(filter={"name": ["Zabbix administrators"]}, output=["usrgrpid"])
        api.user.create(username="powerless", passwd="of-no-might", roleid=role["roleid"], usrgrps=[group])
    return "powerless"


def _refused(url: str, config: Path, user: str, password: str) -> str:
    """What the command says; it has failed, in one line, without the password."""
    file = config.parent / "password"
    file.write_text(password)
    argv = [sys.executable, "-m", "execute_engine.zabbix", "provision", "--url", url, "--config", str(config)]
    argv += ["--token-file", str(file)] if not user else ["--user", user, "--password-file", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.count("\n") == 1, done.stderr
    assert password not in done.stderr
    return done.stderr


def test_each_error_is_one_line_that_says_what_to_do(api: Any, zabbix: Zabbix, config: Path, powerless: str) -> None:
    (closed,) = free_ports(1)
    expected = "expected the address of Zabbix's web pages, such as http"
    for url, said in (
        (f"http://127.0.0.1:{closed}/", "cannot be reached"),
        ("http://nowhere.invalid/", "cannot be reached"),
        ("zabbix.example.org", "cannot be reached"),
        (f"{zabbix.url}/zabbix/", "answers 404"),
        (f"{zabbix.url}/index.php", "answers, but not as Zabbix does"),
        (f"http://127.0.0.1:{zabbix.trapper_port}/", "cannot be reached"),
    ):
        problem = _refused(url, config, USER, "the-password")
        assert said in problem, problem
        assert expected in problem, problem
    assert "does not let user Admin in: name or password is wrong" in _refused(zabbix.url, config, USER, "the-password")
    assert "the token is wrong or has expired" in _refused(zabbix.url, config, "", "0123456789abcdef" * 4)
    assert "a user of the type Super admin may" in _refused(zabbix.url, config, powerless, "of-no-might")
    assert not api.template.get(filter={"host": NAMES}, output=["templateid"])


def test_each_trigger_fires_on_what_it_is_for_and_ends_with_it(api: Any, zabbix: Zabbix, config: Path) -> None:
    zabbix.provision(config, runs="both")
    host = _host(api, "engine-1")
    api.host.update(hostid=host["hostid"], macros=[{"macro": name, "value": value} for name, value in SOON.items()])
    for key in ("exec.distribute.leaders", "exec.engine.alive"):  # once a minute otherwise
        (item,) = api.item.get(hostids=host["hostid"], filter={"key_": key}, output=["itemid"])
        api.item.update(itemid=item["itemid"], delay="5s")
    trapper = Trapper(ZabbixSettings(ip=("127.0.0.1",), zabbix_port=zabbix.trapper_port, host="engine-1"))

    def send(values: dict[str, int]) -> int:
        return trapper.send(values, time.monotonic() + 60)

    wait_for("the server to know the items", lambda: send(GOOD) == 0)
    everything = {trigger.name for template in items.TEMPLATES for trigger in template.triggers}
    spooled = 0

    def goes_bad() -> bool:
        nonlocal spooled
        spooled += 1
        time.sleep(1)
        assert send({**BAD, "exec.engine.spooled": spooled}) == 0
        return zabbix.problems("engine-1") == everything

    def is_good() -> bool:
        time.sleep(1)
        assert send(GOOD) == 0
        return not zabbix.problems("engine-1")

    wait_for("no problem", is_good)
    try:
        wait_for("every problem", goes_bad)
    except TimeoutError:
        assert zabbix.problems("engine-1") == everything
    wait_for("the silence of one that is gone", lambda: not OF_THE_LIVING & zabbix.problems("engine-1"), 240)
    assert "Engine: no ping" in zabbix.problems("engine-1")
    wait_for("no problem any more", is_good, 400)

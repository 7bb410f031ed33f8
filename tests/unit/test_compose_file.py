"""docker-compose.yml, read as a file: what only docker would show."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
import yaml

from distribute.__main__ import ROLES
from execute_engine.__main__ import CONSUMER_END_SECONDS
from tests.daemons import ROOT
from tests.servers.compose import grace_seconds


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def test_each_image_of_ours_is_built_by_one_service_and_fetched_by_none(services: dict[str, dict[str, Any]]) -> None:
    """docker compose builds side by side, and the second image of the same name is refused."""
    built = Counter(service["image"] for service in services.values() if "build" in service)
    assert len(built) == 3
    assert set(built.values()) == {1}
    for name, service in services.items():
        if service["image"] in built:
            assert ("build" in service) != (service.get("pull_policy") == "never"), name


def test_docker_waits_longer_for_a_stop_than_it_takes(services: dict[str, dict[str, Any]]) -> None:
    engine = services["execute-engine"]
    (drain,) = re.findall(":-([0-9]+)}", engine["environment"]["EXECUTE_ENGINE_EXEC_ENGINE_DRAIN_SECONDS"])
    assert grace_seconds(engine) > int(drain) + CONSUMER_END_SECONDS
    assert grace_seconds(services["distribute-1"]) > max(ROLES.values())


def test_whom_distribute_believes_is_in_a_network_with_nothing_but_nginx_and_distributes(
    services: dict[str, dict[str, Any]],
) -> None:
    networks = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["networks"]
    (addresses,) = networks["frontend"]["ipam"]["config"]
    believed = services["distribute-1"]["environment"]["EXECUTE_ENGINE_DISTRIBUTE_TRUSTED_PROXIES"]
    assert believed == addresses["subnet"]
    members = {name for name, service in services.items() if "frontend" in service["networks"]}
    assert members == {"nginx", "distribute-1", "distribute-2"}
    assert services["nginx"]["networks"] == ["frontend"]


def test_a_configuration_with_passwords_gets_into_no_image() -> None:
    copied = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")]
    sources = {source for words in copied for source in words[1:-1] if not source.startswith("--")}
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {source.rstrip("/") for source in sources} - {"/opt/execute-engine/.venv"} == let_in
    assert not {"conf", "conf/server.conf", "secrets", ".", ".env"} & let_in

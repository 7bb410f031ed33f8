"""The shipped docker-compose.yml in real containers of podman, as root: a copy of the project, with what a user types.

Services that have no image of their own in the Dockerfile come from Debian's packages (tests/servers/stand_ins), under
the same names and with the same environment, volumes, users and rights. podman-compose 1.0.3 knows neither profiles,
conditions, grace periods, subnets nor --scale: adapted() leaves these out, and the methods here do what they mean.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.servers import kafka
from tests.servers.process import ServerMissing, free_ports, program, wait_for

ROOT = Path(__file__).resolve().parents[2]
STAND_INS = Path(__file__).with_name("stand_ins")
CACHE = Path.home() / ".cache/execute-engine/compose-1"  # images and their layers; all runs share them
SUITE = "bookworm"
BASE = "localhost/execute-engine-test/debian:12"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
IN_A_BUILD = "/run/authorities.crt"  # where its own package does not write
PROFILES = {"demo", "tools", "zabbix"}
TOOLS = {"token"}  # not started by up
TARGETS = {
    "distribute": "DISTRIBUTE_IMAGE",
    "execute-engine": "ENGINE_IMAGE",
    "demo-host": "DEMO_HOST_IMAGE",
}
STAND_IN_TARGETS = {
    "database": "MARIADB_IMAGE",
    "kafka": "KAFKA_IMAGE",
    "nginx": "NGINX_IMAGE",
    "zabbix-server": "ZABBIX_SERVER_IMAGE",
    "zabbix-web": "ZABBIX_WEB_IMAGE",
}
SOURCES = (
    "Dockerfile", ".dockerignore", "requirements.lock", "conf/compose", "sql", "contract",
    "distribute", "execute_engine",
)  # fmt: skip
ADAPTED = "adapted.yml"
NO_DEFAULT = re.compile(r"\$\{(\w+):-\}")  # podman-compose 1.0.3 leaves it as it stands


class Podman:
    """podman with a configuration and a storage of its own."""

    def __init__(self, directory: Path) -> None:
        program("podman", "podman")
        if os.geteuid() != 0:
            raise ServerMissing("containers of the test are root's: start it as root")
        CACHE.mkdir(parents=True, exist_ok=True)
        networks = CACHE / "networks"
        networks.mkdir(exist_ok=True)
        most = os.sysconf("SC_OPEN_MAX")
        containers, storage = directory / "containers.conf", directory / "storage.conf"
        containers.write_text(f"""\
[containers]
default_ulimits = ["nofile={most}:{most}", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
network_config_dir = "{networks}"
""")
        storage.write_text(f"""\
[storage]
driver = "overlay"
graphroot = "{CACHE}/storage"
runroot = "{CACHE}/run"
""")
        self.environment = {
            **os.environ,
            "CONTAINERS_CONF": str(containers),
            "CONTAINERS_STORAGE_CONF": str(storage),
            "BUILDAH_FORMAT": "docker",  # the only one that keeps a HEALTHCHECK
        }

    def run(self, *arguments: str, seconds: float = 300, check: bool = True) -> str:
        """What podman says on its standard output. Raises RuntimeError with all that it said when it fails."""
        return run(["podman", *arguments], self.environment, seconds=seconds, check=check)

    def image_exists(self, image: str) -> bool:
        return subprocess.run(["podman", "image", "exists", image], env=self.environment, check=False).returncode == 0


def run(
    command: Iterable[str], environment: dict[str, str], folder: Path | None = None, *, seconds: float = 300,
    check: bool = True,
) -> str:  # fmt: skip
    """Standard output. Raises RuntimeError with standard error too when the command fails."""
    command = list(command)
    ended = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False
    )
    if check and ended.returncode:
        raise RuntimeError(f"{shlex.join(command)}: {ended.returncode}\n{ended.stdout[-4000:]}\n{ended.stderr[-4000:]}")
    return ended.stdout


def grace_seconds(service: dict[str, Any]) -> int:
    """How long docker waits for the service's end, as the shipped file has it: 40s, or ${STOP_SECONDS:-220}s."""
    (seconds,) = re.findall("([0-9]+)}?s$", service["stop_grace_period"])
    return int(seconds)


class Compose:
    """One project: its own copy of the sources, secrets, containers, networks and volumes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "project"
        self.podman = Podman(directory)
        self.name = f"ee{secrets.token_hex(4)}"
        self.said = ""  # by the second script/setup compose, the port being its own
        self.images: dict[str, str] = {}
        self.shipped: dict[str, Any] = {}

    def start(self) -> None:
        """What a user types: script/setup compose, docker compose up -d. Does not wait for readiness."""
        self._copy_sources()
        self.shipped = yaml.safe_load((self.directory / "docker-compose.yml").read_text())
        self.set_up()
        port, zabbix_port = free_ports(2)
        self.configure(PORT=port, ZABBIX_PORT=zabbix_port, ZABBIX_IP="zabbix-server", FRONTEND_NETWORK=_subnet())
        self.said = self.set_up()
        self._make_networks()
        self._build()
        self.up(engines=1)

    def configure(self, **changed: object) -> None:
        """Lines of .env, new or in the place of former ones; containers that are there do not change."""
        lines = [f"{name}={value}\n" for name, value in {**self.settings(), **changed}.items()]
        (self.directory / ".env").write_text("".join(lines))

    def settings(self) -> dict[str, str]:
        """Of .env."""
        lines = (self.directory / ".env").read_text().splitlines()
        return {name: value for name, is_setting, value in (line.partition("=") for line in lines) if is_setting}

    def set_up(self) -> str:
        return run(["./script/setup", "compose"], self.podman.environment, self.directory)

    def up(self, engines: int, *services: str) -> None:
        """docker compose up -d --scale execute-engine=ENGINES [SERVICE ...]"""
        settings, adapted = self.settings(), yaml.safe_dump(self.adapted(engines), sort_keys=False)
        (self.directory / ADAPTED).write_text(NO_DEFAULT.sub(lambda name: settings.get(name[1], ""), adapted))
        every = [name for name in self.adapted(engines)["services"] if name not in TOOLS]
        self._compose("up", "-d", "--no-build", *(services or every))

    def run_tool(self, service: str, *arguments: str) -> str:
        """docker compose run --rm SERVICE ARGUMENT ...; what it said, and podman-compose too."""
        return self._compose("run", "--rm", "-T", "--no-deps", service, *arguments)

    def up_anew(self, service: str) -> None:
        """docker compose up -d SERVICE, after what it is made of has changed."""
        self.stop_service(service)
        self.podman.run("rm", self.container(service))
        self.up(1, service)

    def shell(self, script: str) -> str:
        """What a user types in the project's folder, with our command in the place of docker compose."""
        return run(
            ["sh", "-euc", script.replace("docker compose", shlex.join(self._command()))],
            self.podman.environment, self.directory,
        )  # fmt: skip

    def adapted(self, engines: int) -> dict[str, Any]:
        """The shipped file for podman-compose 1.0.3; secrets, environments, networks, users and rights are kept."""
        services = {}
        for name, shipped in self.shipped["services"].items():
            if not PROFILES.intersection(shipped.get("profiles", PROFILES)):
                continue
            service = {key: value for key, value in shipped.items() if key not in ("build", "profiles", "healthcheck")}
            for variable, image in self.images.items():
                service["image"] = image if f"${{{variable}:" in service["image"] else service["image"]
            services[name] = service
        services["execute-engine"]["deploy"] = {"replicas": engines}
        services["kafka-1"]["volumes"].append(f"{kafka.jars()}:/opt/kafka-jars:ro")
        used = {network for service in services.values() for network in service["networks"]}
        networks = {name: None for name in self.shipped["networks"] if name in used}
        return {key: self.shipped[key] for key in ("volumes", "secrets")} | {
            "services": services, "networks": networks,
        }  # fmt: skip

    def container(self, service: str, number: int = 1) -> str:
        return f"{self.name}_{service}_{number}"

    def inspect(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(self.podman.run("inspect", container))[0]
        return found

    def address(self, service: str, network: str) -> str:
        """Of its container in this network of the file."""
        networks = self.inspect(self.container(service))["NetworkSettings"]["Networks"]
        return str(networks[f"{self.name}_{network}"]["IPAddress"])

    def is_healthy(self, service: str, number: int = 1) -> bool:
        """As the health check of the shipped file says, or else that of the image."""
        container = self.container(service, number)
        if declared := self.shipped["services"][service].get("healthcheck"):
            command = ["podman", "exec", container, *declared["test"][1:]]
        else:
            command = ["podman", "healthcheck", "run", container]
        return not subprocess.run(command, env=self.podman.environment, capture_output=True, check=False).returncode

    def wait_until_healthy(self, service: str, number: int = 1, seconds: float = 180) -> None:
        try:
            wait_for(f"{service} to be healthy", lambda: self.is_healthy(service, number), seconds)
        except TimeoutError as exc:
            raise RuntimeError(f"{exc}\n{self.logs(service, number)}") from exc

    def stop_service(self, service: str, number: int = 1) -> None:
        """docker compose stop SERVICE: SIGTERM, and SIGKILL after its grace period."""
        seconds = grace_seconds(self.shipped["services"][service])
        self.podman.run("stop", "-t", f"{seconds}", self.container(service, number), seconds=seconds + 60)

    def logs(self, service: str, number: int = 1) -> str:
        ended = subprocess.run(
            ["podman", "logs", self.container(service, number)], env=self.podman.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        return ended.stdout

    def stop(self) -> None:
        """Containers, networks and volumes of this project are gone; the images stay."""
        label = f"label=io.podman.compose.project={self.name}"
        if ids := self.podman.run("ps", "-aq", "--filter", label).split():
            self.podman.run("rm", "-f", "-v", "-t", "0", *ids)
        for kind in ("pod", "volume", "network"):
            if ids := self.podman.run(kind, "ls", "-q", "--filter", label).split():
                self.podman.run(kind, "rm", "-f", *ids, check=False)

    def _make_networks(self) -> None:
        """Those with addresses of their own, which podman-compose 1.0.3 does not give them."""
        for name, shipped in self.shipped["networks"].items():
            for each in (shipped or {}).get("ipam", {}).get("config", ()):
                variable = re.fullmatch(r"\$\{(\w+):-[^}]+}", each["subnet"])
                assert variable
                label = f"io.podman.compose.project={self.name}"
                self.podman.run(
                    "network", "create", "--label", label, "--subnet", self.settings()[variable[1]],
                    f"{self.name}_{name}",
                )  # fmt: skip

    def _compose(self, *arguments: str) -> str:
        return run([*self._command(), *arguments], self.podman.environment, self.directory)

    def _command(self) -> list[str]:
        return [program("podman-compose", "podman-compose"), "-f", ADAPTED, "-p", self.name]

    def _copy_sources(self) -> None:
        listed = run(["git", "ls-files", "-co", "--exclude-standard", "-z"], dict(os.environ), ROOT)
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).exists():
                (self.directory / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.directory / name)
                os.utime(self.directory / name, (0, 0))  # equal sources are equal layers, whoever checked them out

    def _build(self) -> None:
        """One at a time for all runs on this machine: they fill the same cache."""
        with (CACHE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.podman.image_exists(BASE):
                _import_base(self.podman)
            for folder, sources, targets in ((self.directory, SOURCES, TARGETS), (STAND_INS, ["."], STAND_IN_TARGETS)):
                version = _digest(folder, sources)
                for target, variable in targets.items():
                    self.images[variable] = self._build_one(folder, target, version)

    def _build_one(self, folder: Path, target: str, version: str) -> str:
        """Its name. Behind a mirror of packages it gets this machine's authorities and pip's settings, and keeps none.

        Where this version of the sources was built before nothing is done: to see that all layers are there would
        take half a minute.
        """
        repository = f"localhost/execute-engine-test/{target}"
        image = f"{repository}:{version}"
        if not self.podman.image_exists(image):
            pip = self.directory.parent / "pip.conf"
            pip.write_text(_pip_settings())
            self.podman.run(
                "build", "--quiet", "--layers", "--network", "host", "--target", target, "--build-arg", f"BASE={BASE}",
                "-v", f"{AUTHORITIES}:{IN_A_BUILD}:ro", "-v", f"{pip}:/etc/pip.conf:ro", "-t", image, str(folder),
                seconds=600,
            )  # fmt: skip
            old = ["--filter", f"reference={repository}", "--filter", "until=24h"]
            for former in self.podman.run("images", "--format", "{{.Repository}}:{{.Tag}}", *old).split():
                self.podman.run("rmi", former, check=False)
        return image


def _subnet() -> str:
    """Hardly that of another run at the same time."""
    return f"198.{18 + secrets.randbelow(2)}.{secrets.randbelow(256)}.0/24"


def _digest(folder: Path, names: Iterable[str]) -> str:
    """Of the contents and modes of these files, and of all files in these folders."""
    found = hashlib.sha256()
    for path in sorted(path for name in names for path in (folder / name, *(folder / name).rglob("*"))):
        if path.is_file():
            found.update(f"{path.relative_to(folder)} {path.stat().st_mode} {path.stat().st_size}\n".encode())
            found.update(path.read_bytes())
    return found.hexdigest()[:20]


def _pip_settings() -> str:
    """What pip is told on this machine by files and variables; a folder of wheels is not there in a build."""
    lines = run(["python3", "-m", "pip", "config", "list"], dict(os.environ), check=False).splitlines()
    settings = {line.partition("=")[0].rpartition(".")[2]: line.partition("=")[2].strip("'") for line in lines}
    settings.pop("find-links", None)
    settings["cert"] = IN_A_BUILD
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items())


def _import_base(podman: Podman) -> None:
    """Debian by debootstrap, about as debian:12-slim is."""
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        debootstrap = program("debootstrap", "debootstrap")
        run([debootstrap, "--variant=minbase", SUITE, f"{scratch}/root"], dict(os.environ), seconds=600)
        leave_out = ["--exclude=./var/cache/apt/archives/*.deb", "--exclude=./var/lib/apt/lists/*"]
        run(["tar", "-C", f"{scratch}/root", *leave_out, "-cf", f"{scratch}/root.tar", "."], dict(os.environ))
        podman.run("import", "--quiet", f"{scratch}/root.tar", BASE)

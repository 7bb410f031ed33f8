"""A private Zabbix: server, its MariaDB, and its frontend (web pages and API) by PHP's own web server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from pyzabbix import ZabbixAPI

from tests.servers import mariadb
from tests.servers.mariadb import MariaDB
from tests.servers.process import Process, ServerMissing, free_ports, listens, program

SQL = Path("/usr/share/zabbix-server-mysql")
PAGES = Path("/usr/share/zabbix")
DATABASE = "ee_zabbix"
USER, PASSWORD = "Admin", "zabbix"  # as a new Zabbix has them
CACHE_SECONDS = 2  # after so long a new item is known
SERVER = """DBHost=127.0.0.1
DBPort={database}
DBName={name}
DBUser={user}
DBPassword={password}
ListenIP=127.0.0.1
ListenPort={trapper}
LogType=console
PidFile={directory}/zabbix_server.pid
SocketDir={directory}
AllowRoot=1
AllowUnsupportedDBVersions=1
CacheUpdateFrequency={cache}
StartPollers=1
StartPreprocessors=1
StartTrappers=2
StartDBSyncers=1
StartDiscoverers=0
StartHTTPPollers=0
FpingLocation=/bin/true
Fping6Location=/bin/true
"""
FRONTEND = """<?php
$DB['TYPE'] = 'MYSQL'; $DB['SERVER'] = '127.0.0.1'; $DB['PORT'] = '{database}';
$DB['DATABASE'] = '{name}'; $DB['USER'] = '{user}'; $DB['PASSWORD'] = '{password}';
$ZBX_SERVER = '127.0.0.1'; $ZBX_SERVER_PORT = '{trapper}'; $ZBX_SERVER_NAME = 'Zabbix';
"""


def login(url: str, password: str = PASSWORD) -> Any:
    """pyzabbix's client, logged in as the administrator."""
    client = ZabbixAPI(url, timeout=120)
    client.login(USER, password)
    return client


def history(api: Any, host: str, key: str, is_text: bool = False) -> list[str]:
    """The values that Zabbix has kept, oldest first."""
    items = api.item.get(host=host, filter={"key_": key}, output=["itemid"])
    kind = 1 if is_text else 3
    ids = [item["itemid"] for item in items]
    values = api.history.get(itemids=ids, history=kind, sortfield="clock", sortorder="ASC") if ids else []
    return [value["value"] for value in values]


class Zabbix:
    """directory must be short: it holds MariaDB's socket. start() blocks about 20 s."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.web_port, self.trapper_port = 0, 0
        self._database = MariaDB(directory)
        self._server = Process(directory, "zabbix_server")
        self._frontend = Process(directory, "php")
        self._password_file = directory / "password"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.web_port}"

    def start(self) -> None:
        php, server = program("php", "php-cli"), program("zabbix_server", "zabbix-server-mysql")
        for folder, package in ((SQL, "zabbix-server-mysql"), (PAGES, "zabbix-frontend-php")):
            if not folder.exists():
                raise ServerMissing(f"{folder} is missing: install {package} (./script/setup does it)")
        self.web_port, self.trapper_port = free_ports(2)
        self._database.start("--innodb-flush-log-at-trx-commit=0", "--skip-innodb-doublewrite")
        self._password_file.write_text(f"{PASSWORD}\n")
        self._fill()
        self._configure()
        self._server.start([server, "-f", "-c", str(self.directory / "server.conf")])
        pages, environment = self.directory / "www", {"PHP_CLI_SERVER_WORKERS": "4", "LOCPATH": str(self._locales())}
        settings = ("memory_limit=256M", "max_execution_time=300", "max_input_time=300", "post_max_size=16M")
        options = [part for setting in (*settings, "date.timezone=UTC") for part in ("-d", setting)]
        self._frontend.start(
            [php, "-S", f"127.0.0.1:{self.web_port}", "-t", str(pages), *options], {**os.environ, **environment}
        )
        self._frontend.wait_until(lambda: listens(self.web_port))
        self._server.wait_until(lambda: listens(self.trapper_port))

    def stop(self) -> None:
        self._frontend.stop(first=signal.SIGINT)
        self._server.stop()
        self._database.stop()

    def api(self) -> Any:
        """pyzabbix's client, logged in as the administrator."""
        return login(self.url)

    def provision(self, config: Path, runs: str = "engine") -> str:
        """By our command, as a user calls it; returns what it printed. Several at once are several machines."""
        argv = [sys.executable, "-m", "execute_engine.zabbix", "provision", "--url", self.url, "--user", USER]
        argv += ["--password-file", str(self._password_file), "--config", str(config), "--runs", runs]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=240).stdout

    def history(self, host: str, key: str, is_text: bool = False) -> list[str]:
        """The values that it has kept, oldest first."""
        return history(self.api(), host, key, is_text)

    def problems(self, host: str) -> set[str]:
        """Names of the problems that it has now."""
        api = self.api()
        hosts = [found["hostid"] for found in api.host.get(filter={"host": [host]}, output=["hostid"])]
        return {found["name"] for found in api.problem.get(hostids=hosts, output=["name"])} if hosts else set()

    def open_to_guests(self, host_group: str) -> None:
        """Pages show without a login what there is to see of the hosts of a group."""
        api = self.api()
        (guest,) = api.user.get(filter={"username": "guest"}, output=["userid"])
        groups = {found["name"]: found["usrgrpid"] for found in api.usergroup.get(output=["name"])}
        (group,) = api.hostgroup.get(filter={"name": [host_group]}, output=["groupid"])
        api.user.update(userid=guest["userid"], usrgrps=[{"usrgrpid": groups["Guests"]}])
        api.usergroup.update(usrgrpid=groups["Guests"], rights=[{"id": group["groupid"], "permission": 2}])

    def dashboard(self, name: str) -> str:
        """The path of its page, which shows the last five minutes."""
        (found,) = self.api().dashboard.get(filter={"name": [name]}, output=["dashboardid"])
        return f"zabbix.php?action=dashboard.view&kiosk=1&from=now-5m&to=now&dashboardid={found['dashboardid']}"

    def page(self, path: str) -> str:
        """The HTML of a page that needs no login, after its scripts have drawn it in a browser."""
        return self._browse(path, "--dump-dom").stdout

    def picture(self, path: str, file: Path, size: tuple[int, int]) -> None:
        """The same as PNG; size is width and height in pixels."""
        self._browse(path, f"--screenshot={file}", f"--window-size={size[0]},{size[1]}")
        assert file.exists()

    def _browse(self, path: str, *options: str) -> subprocess.CompletedProcess[str]:
        always = ("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars")
        argv = [program("chromium", "chromium"), *(f"--{option}" for option in always)]
        argv += ["--virtual-time-budget=20000", f"--user-data-dir={self.directory}/browser", *options]
        return subprocess.run([*argv, f"{self.url}/{path}"], check=True, capture_output=True, text=True, timeout=240)

    def _fill(self) -> None:
        self._database.sql(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        client = program("mariadb", "mariadb-client")
        argv = [client, "--no-defaults", f"--socket={self.directory}/s", "-uroot", DATABASE]
        for name in ("schema", "images", "data"):
            with subprocess.Popen(["zcat", str(SQL / f"{name}.sql.gz")], stdout=subprocess.PIPE) as unpacked:
                subprocess.run(argv, stdin=unpacked.stdout, check=True, capture_output=True, timeout=300)

    def _configure(self) -> None:
        values = {
            "directory": self.directory,
            "database": self._database.port,
            "name": DATABASE,
            "user": mariadb.USER,
            "password": mariadb.PASSWORD,
            "trapper": self.trapper_port,
            "cache": CACHE_SECONDS,
        }
        (self.directory / "server.conf").write_text(SERVER.format(**values))
        configuration = self.directory / "zabbix.conf.php"
        configuration.write_text(FRONTEND.format(**values))
        shutil.copytree(PAGES, self.directory / "www", ignore_dangling_symlinks=True)
        reader = self.directory / "www/include/classes/core/CConfigFile.php"  # Debian has a path in /etc built in
        shipped = reader.read_text()
        assert "/etc/zabbix/zabbix.conf.php" in shipped
        reader.write_text(shipped.replace("/etc/zabbix/zabbix.conf.php", str(configuration)))

    def _locales(self) -> Path:
        """The pages ask for a locale that a small machine does not have."""
        folder = self.directory / "locale"
        folder.mkdir()
        (folder / "en_US").symlink_to("/usr/lib/locale/C.utf8")
        return folder

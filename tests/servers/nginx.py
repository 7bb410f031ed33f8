"""A private nginx that runs the shipped configuration, with other addresses and certificates of the test's own."""

from __future__ import annotations

import getpass
import grp
import os
import re
from pathlib import Path

from tests.servers.certificates import Authority
from tests.servers.process import Process, free_ports, listens, program

SHIPPED = Path(__file__).parents[2] / "conf" / "nginx" / "distribute.conf"
MAIN = """user {user} {group};
pid {directory}/pid;
daemon off;
error_log stderr notice;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/distribute.conf;
}}
"""


class Nginx:
    """Before the distributes on these ports; https://127.0.0.1:PORT with a certificate of the authority."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        self.directory = directory
        self.authority = authority
        self.port = 0
        self.process = Process(directory, "nginx")

    def start(self, *distributes: int) -> None:
        (self.port,) = free_ports(1)
        certificate, key = self.authority.issue("nginx", "127.0.0.1")
        servers = "".join(f"    server 127.0.0.1:{port};\n" for port in distributes)
        text = re.sub(r"(    server [\d.]+:8007.*\n)+", servers, SHIPPED.read_text())
        for shipped, own in (
            ("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl"),
            ("/etc/nginx/distribute.crt", str(certificate)),
            ("/etc/nginx/distribute.key", str(key)),
        ):
            assert text.count(shipped) == 1, f"{SHIPPED} has no {shipped}"
            text = text.replace(shipped, own)
        (self.directory / "distribute.conf").write_text(text)
        main = self.directory / "nginx.conf"
        group = grp.getgrgid(os.getgid()).gr_name  # else root's workers would be somebody who may not write here
        main.write_text(MAIN.format(directory=self.directory, user=getpass.getuser(), group=group))
        self.process.start([program("nginx", "nginx"), "-p", str(self.directory), "-c", str(main), "-e", "stderr"])
        self.process.wait_until(lambda: listens(self.port))

    def stop(self) -> None:
        self.process.stop()

"""A git server as Gitlab is one: bare repositories over ssh, by user git of a fleet, and over https with a token.

Every kind of host of the fleet is a kind of git server: one that never sends its banner, takes no key, hangs after the
login, refuses or loses every packet. A project that does not exist is answered in Gitlab's words; in the group PLAIN,
by ssh, in those of git itself. Only fetching is served.
"""

from __future__ import annotations

import base64
import os
import posixpath
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from tests.servers.certificates import Authority
from tests.servers.fleet import GIT, Fleet
from tests.servers.process import Process, free_ports, listens, program

TOKEN = "glpat-test-token"
PLAIN = "plain"
BRANCHES, TAGS = ("main", "develop"), ("v1.0", "v1.1")
BIG_FILES = 200

# What a project's files may be: contents, the target of a symbolic link, or None for one that is deleted.
File = bytes | PurePosixPath | None

NOT_FOUND = "The project you were looking for could not be found or you don't have permission to view it."
# Passes on what git says; of a repository with a file `stall`, no more bytes than stand in it until it is gone.
HOLD = """#!/bin/bash
set -uo pipefail
hold() {
    if [ -e "$1/stall" ]; then
        stdbuf -o0 head -c "$(cat "$1/stall")"
        next=$(head -c 1 | od -An -tx1 | tr -d ' ')
        [ -n "$next" ] || return 0
        while [ -e "$1/stall" ] && kill -0 $PPID 2>/dev/null; do sleep 0.1; done
        printf "\\x$next"
    fi
    cat
}
"""
SSH = f"""{HOLD}
read -r command path <<<"$SSH_ORIGINAL_COMMAND"
path=${{path//\\'/}}
path=${{path#/}}
if [ "$command" != git-upload-pack ]; then
    echo "remote: ERROR: $command is not allowed." >&2
    exit 1
elif [ ! -d "$path" ] && [[ "$path" != {PLAIN}/* ]]; then
    echo "remote: ERROR: {NOT_FOUND}" >&2
    exit 1
fi
git-upload-pack "$path" | hold "$path"
"""
HTTPS = f"""{HOLD}
git http-backend | hold "$GIT_PROJECT_ROOT/${{PATH_INFO%%.git/*}}.git"
"""
NGINX = """user root;
pid {directory}/pid;
daemon off;
error_log stderr notice;
events {{ worker_connections 128; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        add_header WWW-Authenticate 'Basic realm="GitLab"' always;
        if ($http_authorization != "Basic {login}") {{ return 401; }}
        location / {{
            include /etc/nginx/fastcgi_params;
            fastcgi_pass unix:{directory}/socket;
            fastcgi_buffering off;
            fastcgi_read_timeout 600;
            fastcgi_param SCRIPT_FILENAME {directory}/https;
            fastcgi_param PATH_INFO $uri;
            fastcgi_param GIT_PROJECT_ROOT {root};
            fastcgi_param GIT_HTTP_EXPORT_ALL 1;
            fastcgi_param HOME {root};
            fastcgi_intercept_errors on;
            error_page 404 = @missing;
        }}
        location @missing {{
            default_type text/plain;
            return 404 "{missing}\n";
        }}
    }}
}}
"""
GITCONFIG = """[safe]
directory = *
[uploadpack]
allowAnySHA1InWant = true
allowFilter = true
"""
COMMITTER = "Test <test@localhost> 1700000000 +0000"


class GitServer:
    """fleet must run; its key is the one that user git logs in with, and authority.certificate the CA of https."""

    def __init__(self, directory: Path, fleet: Fleet) -> None:
        self.directory = directory
        self.authority = Authority(directory)
        self.fleet = fleet
        self.root = fleet.git_home
        self.port = 0
        self._nginx = Process(directory, "nginx")
        self._fcgiwrap = Process(directory, "fcgiwrap")
        self._big = ""

    def start(self) -> None:
        """Blocks until https answers. Raises ServerMissing where a program is missing."""
        git, nginx, fcgiwrap = program("git", "git"), program("nginx", "nginx"), program("fcgiwrap", "fcgiwrap")
        (self.port,) = free_ports(1)
        (self.root / ".gitconfig").write_text(GITCONFIG)
        for script, text in ((self.fleet.git_command, SSH), (self.directory / "https", HTTPS)):
            script.write_text(text)
            script.chmod(0o755)
        certificate, key = self.authority.issue("git", "127.0.0.1")
        text = NGINX.format(
            directory=self.directory, port=self.port, certificate=certificate, key=key, root=self.root,
            login=base64.b64encode(f"oauth2:{TOKEN}".encode()).decode(), missing=NOT_FOUND,
        )  # fmt: skip
        config = self.directory / "nginx.conf"
        config.write_text(text)
        self._fcgiwrap.start([fcgiwrap, "-c", "8", "-s", f"unix:{self.directory}/socket"])
        self._nginx.start([nginx, "-p", str(self.directory), "-c", str(config), "-e", "stderr"])
        self._fcgiwrap.wait_until((self.directory / "socket").exists)
        self._nginx.wait_until(lambda: listens(self.port))
        self._git = [git, "-c", "core.compression=0", "-c", "fastimport.unpackLimit=1"]

    def stop(self) -> None:
        self._nginx.stop()
        self._fcgiwrap.stop()

    @property
    def ssh_template(self) -> str:
        """For [Gitlab] URL_TEMPLATE; its IP is an address of the fleet, one of fleet.hosts(kind)."""
        return f"ssh://{GIT}@{{ip}}:{self.fleet.port}/{{group}}/{{project}}.git"

    def https_template(self, token: str = TOKEN) -> str:
        """For [Gitlab] URL_TEMPLATE; its IP is 127.0.0.1."""
        return f"https://oauth2:{token}@{{ip}}:{self.port}/{{group}}/{{project}}.git"

    def ssh_url(self, name: str, kind: str = "healthy") -> str:
        """name is GROUP/PROJECT, kind one of sick_hosts.NETWORKS."""
        return self._url(self.ssh_template, name, self.fleet.hosts(kind)[0])

    def https_url(self, name: str, token: str = TOKEN) -> str:
        return self._url(self.https_template(token), name, "127.0.0.1")

    def create(
        self, name: str, files: Mapping[str, File] | None = None, submodules: Mapping[str, str] | None = None
    ) -> None:
        """A project with branches main and develop and annotated tags v1.0 and v1.1.

        Each tag is a commit of its own, whose file `version` holds the tag; main is at v1.1, and develop at v1.0.
        submodules: path to the name of a project that exists, whose main is taken; the url is a relative one.
        """
        self._run("init", "-q", "--bare", "-b", "main", str(self._repository(name)))
        modules = submodules or {}
        tree: dict[str, File] = dict(files or {})
        if modules:
            tree[".gitmodules"] = "".join(
                f'[submodule "{path}"]\n\tpath = {path}\n\turl = {posixpath.relpath(other, name)}.git\n'
                for path, other in modules.items()
            ).encode()
        links = [f"M 160000 {self.commit_id(other)} {path}\n".encode() for path, other in modules.items()]
        stream: list[bytes] = []
        for number, tag in enumerate(TAGS, 1):
            stream += _commit("main", number, tag, {**tree, "version": f"{tag}\n".encode()})
            stream += links
            stream.append(f"tag {tag}\nfrom :{number}\ntagger {COMMITTER}\n{_data(tag.encode()).decode()}".encode())
        stream.append(b"reset refs/heads/develop\nfrom :1\n")
        self._import(name, stream)

    def commit(self, name: str, branch: str, files: Mapping[str, File]) -> str:
        """One more commit on an existing branch. Returns its id."""
        self._import(name, _commit(branch, 1, "change", files, f"refs/heads/{branch}^0"))
        return self.commit_id(name, branch)

    def commit_id(self, name: str, ref: str = "main") -> str:
        return self._run("-C", str(self._repository(name)), "rev-parse", f"{ref}^{{commit}}").strip()

    def move_branch(self, name: str, branch: str, ref: str) -> None:
        """Forward, backward or aside, as a forced push does; a branch that does not exist is made."""
        self._run("-C", str(self._repository(name)), "branch", "-f", branch, ref)

    def delete_branch(self, name: str, branch: str) -> None:
        self._run("-C", str(self._repository(name)), "branch", "-D", branch)

    def big(self) -> str:
        """The name of a project of 200 files of 1 MiB which do not compress, made at the first call."""
        if not self._big:
            name = "ci-cd/big"
            self.create(name)
            files = ((f"big/{number}", os.urandom(1 << 20)) for number in range(BIG_FILES))
            self._import(name, _commit("main", 1, "big", files, "refs/heads/main^0"))
            self._big = name
        return self._big

    def stall(self, name: str, after_bytes: int = 100_000) -> None:
        """Whoever fetches this project gets so many bytes, in each connection, and no more until go_on()."""
        (self._repository(name) / "stall").write_text(str(after_bytes))

    def go_on(self, name: str) -> None:
        """Fetches that have stalled go on, too."""
        (self._repository(name) / "stall").unlink()

    @staticmethod
    def _url(template: str, name: str, ip: str) -> str:
        group, _, project = name.rpartition("/")
        return template.format(ip=ip, group=group, project=project)

    def _repository(self, name: str) -> Path:
        return self.root / f"{name}.git"

    def _import(self, name: str, stream: Iterable[bytes]) -> None:
        command = [*self._git, "-C", str(self._repository(name)), "fast-import", "--quiet", "--depth=0"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=_environment()) as importer:
            assert importer.stdin is not None
            importer.stdin.writelines(stream)
            importer.stdin.close()
            assert importer.wait(60) == 0, f"git fast-import failed for {name}"

    def _run(self, *words: str) -> str:
        done = subprocess.run([*self._git, *words], capture_output=True, text=True, env=_environment(), check=False)
        assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr}"
        return done.stdout


def _commit(
    branch: str, mark: int, message: str, files: Mapping[str, File] | Iterable[tuple[str, File]], parent: str = ""
) -> Iterator[bytes]:
    """A commit for git fast-import."""
    yield f"commit refs/heads/{branch}\nmark :{mark}\ncommitter {COMMITTER}\n".encode() + _data(message.encode())
    if parent:
        yield f"from {parent}\n".encode()
    for path, file in files.items() if isinstance(files, Mapping) else files:
        if file is None:
            yield f"D {path}\n".encode()
        elif isinstance(file, PurePosixPath):
            yield f"M 120000 inline {path}\n".encode() + _data(str(file).encode())
        else:
            yield f"M 100644 inline {path}\n".encode() + _data(file)


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)


def _environment() -> dict[str, str]:
    """Nothing of the configuration of who runs the tests."""
    return {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}

"""What is run through our runner and through the stock commands: single modules, and tasks that no command line has."""

from __future__ import annotations

from dataclasses import dataclass

from tests.servers.fleet import OPS, PASS, PASSWORD

ROOM = "/tmp/ee-differential"  # on the hosts, which are this machine; removed before each side runs


@dataclass(frozen=True)
class Case:
    name: str
    module: str = ""
    args: str = ""
    tasks: str = ""  # a list of tasks in YAML instead of a module
    hosts: str = "healthy"
    count: int = 1
    become: bool = False
    check: bool = False
    user: str = OPS
    password: str = ""  # of ssh, with user PASS
    sudo_password: str = ""
    interpreter: str = "/usr/bin/python3"
    own_words: bool = False  # asyncssh says it in words of ours: only the kind of result is compared


SINGLE = (
    Case("shell", "shell", "echo one two; echo three >&2"),
    Case("shell template", "shell", "echo {{ inventory_hostname }} {{ 1 + 1 }}"),
    Case("shell failing", "shell", "echo out; echo err >&2; exit 3"),
    Case("shell big", "shell", "seq 1 200000"),
    Case("shell not utf-8", "shell", r"printf 'a\377\376b'"),
    Case("shell check", "shell", "echo one", check=True),
    Case("shell chdir creates", "shell", "pwd chdir=/usr creates=/etc/passwd"),
    Case("shell unknown argument", "shell", "echo one nonsense=1"),
    Case("command", "command", "echo 'a b' c"),
    Case("command false", "command", "/bin/false"),
    Case("command missing program", "command", "/no/such/program"),
    Case("raw", "raw", "echo raw; echo err >&2"),
    Case("raw failing", "raw", "exit 4"),
    Case("raw binary", "raw", r"printf 'a\377b\n'"),
    Case("ping", "ping", count=3),
    Case("ping crash", "ping", "data=crash"),
    Case("file", "file", f"path={ROOM}/file state=directory mode=0750"),
    Case("stat", "stat", "path=/etc/passwd"),
    Case("stat bad argument", "stat", "path=/etc/passwd nonsense=1"),
    Case("missing argument", "file", "state=directory"),
    Case("setup", "setup", "gather_subset=min"),
    Case("user check", "user", "name=nobody shell=/bin/true", check=True),
    Case("lineinfile", "lineinfile", f"path={ROOM}/lines line=one create=yes"),
    Case("service facts", "service_facts"),
    Case("package facts", "package_facts"),
    Case("getent", "getent", "database=passwd key=root"),
    Case("find", "find", "paths=/etc patterns=host*"),
    Case("copy", "copy", f"content=hello dest={ROOM}/copied"),
    Case("uri refused", "uri", "url=http://127.0.0.1:9/ timeout=5"),
    Case("service", "service", "name=no-such-service state=started"),
    Case("unknown module", "no_such_module"),
    Case("become", "command", "id -un", become=True, count=2),
    Case("become password", "command", "id -un", become=True, user=PASS, password=PASSWORD, sudo_password=PASSWORD),
    Case("become wrong", "command", "id", become=True, user=PASS, password=PASSWORD, sudo_password="wrong-password"),
    Case("become missing", "command", "id", become=True, user=PASS, password=PASSWORD),
    Case("become raw", "raw", "id -un", become=True),
    Case("become raw password", "raw", "id -un", become=True, user=PASS, password=PASSWORD, sudo_password=PASSWORD),
    Case("no python", "command", "id", interpreter="/no/such/python"),
    Case("interpreter discovery", "ping", interpreter="auto_silent"),
    Case("login refused", "ping", hosts="no_auth", own_words=True),
    Case("connection refused", "ping", hosts="refused", own_words=True),
    Case("connection refused raw", "raw", "id", hosts="refused", own_words=True),
    Case("become other user", tasks="- {command: id -un, become: true, become_user: nobody}"),
    Case("no_log", tasks="- {shell: echo hidden, no_log: true}"),
    Case("environment", tasks="- {shell: echo $FOO, environment: {FOO: bar}}"),
    Case("diff", tasks=f"- {{lineinfile: {{path: {ROOM}/diff, line: two, create: true}}, diff: true}}"),
    Case("async", tasks="- {command: sleep 1, async: 20, poll: 1}"),
    Case("undefined", tasks="- {debug: {msg: '{{ undefined_thing }}'}}"),
    Case("task timeout", tasks="- {command: sleep 30, timeout: 1}"),
    Case("timeout while pausing", tasks="- {wait_for_connection: {delay: 20}, timeout: 1}"),
    Case(
        "loop control", tasks="- {shell: 'echo {{ x }}', loop: [a, b], loop_control: {loop_var: x, label: '{{ x }}'}}"
    ),
)

PLAYBOOKS = (("long", "linear"), ("long", "free"), ("corners", "linear"), ("corners", "free"), ("together", "linear"))

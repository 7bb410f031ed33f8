"""Projects from Gitlab onto the share, by REST: a real git server over ssh and https, SQLite and MariaDB."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import sqlalchemy as sa

from contract import project_files
from contract.config import DatabaseSettings, GitlabSettings
from contract.database import Database
from contract.tables import audit, project_version, task
from distribute.project_tree import Tree
from distribute.sweep import Sweep
from tests.integration.rest import Rest, adhoc, opened
from tests.servers.git import GitServer
from tests.servers.process import wait_for

GROUP = "team"
COUNT = iter(range(10_000))

Clone = Callable[..., dict[str, Any]]


@pytest.fixture
def sqlite(sqlite_settings: DatabaseSettings) -> Iterator[Database]:
    database = Database(sqlite_settings)
    yield database
    database.close()


@pytest.fixture
def share(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def gitlab(git_server: GitServer) -> GitlabSettings:
    return by_ssh(git_server)


@pytest.fixture
def rest(database: Database, gitlab: GitlabSettings, share: Path) -> Rest:
    return Rest(database, gitlab=gitlab, files_dir=share)


@pytest.fixture
def app(git_server: GitServer) -> str:
    """A project of its own: its name without the group."""
    return new_project(git_server, {"conf/app.ini": b"port = 1\n", "run.sh": b"echo hi\n"})


def by_ssh(server: GitServer, kind: str = "healthy", **settings: Any) -> GitlabSettings:
    ip = server.fleet.hosts(kind)[0]
    defaults = {"group": GROUP, "url_template": server.ssh_template, "ssh_key_file": server.fleet.key}
    return GitlabSettings(ip=ip, **{**defaults, "clone_timeout": 60, **settings})


def by_https(server: GitServer, **settings: Any) -> GitlabSettings:
    defaults = {"group": GROUP, "url_template": server.https_template(), "ssl_ca": server.authority.certificate}
    return GitlabSettings(ip="127.0.0.1", **{**defaults, "clone_timeout": 60, **settings})


def new_project(server: GitServer, files: dict[str, Any] | None = None, **arguments: Any) -> str:
    name = f"app-{next(COUNT)}-{os.getpid()}"
    server.create(f"{GROUP}/{name}", files, **arguments)
    return name


def clone(rest: Rest, name: str, status: int = 200, **fields: Any) -> dict[str, Any]:
    return rest.post("/file/", {"project_name": name, **fields}, status)


def entries(share: Path) -> set[str]:
    """Everything on the share but mirrors, locks and known hosts."""
    found = {str(path.relative_to(share)) for path in share.rglob("*") if not path.is_dir() or path.is_symlink()}
    return {path for path in found if not path.startswith((".mirrors/", ".locks/", ".known_hosts", ".share"))}


@pytest.mark.parametrize("way", [by_ssh, by_https])
def test_a_project_is_cloned_rolled_forward_and_back(
    git_server: GitServer, database: Database, share: Path, app: str, way: Callable[[GitServer], GitlabSettings]
) -> None:
    rest = Rest(database, gitlab=way(git_server), files_dir=share)
    name = f"{GROUP}/{app}"
    first = clone(rest, app, ref="v1.0")["data"]
    assert first.pop("seconds") > 0
    old = git_server.commit_id(name, "v1.0")
    size = sum(len(text) for text in (b"port = 1\n", b"echo hi\n", b"v1.0\n"))
    assert first == {"project": app, "group": GROUP, "ref": "v1.0", "commit": old, "files": 3, "bytes": size}
    assert (share / app).is_symlink()
    assert os.readlink(share / app) == f".versions/{app}/{old}"
    assert (share / app / "version").read_text() == "v1.0\n"
    assert project_files.version_mark(share, app, old).read_text() == old

    new = git_server.commit(name, "main", {"conf/app.ini": b"port = 2\n", "run.sh": None})
    assert clone(rest, app)["data"]["ref"] == "main"
    assert (share / app / "conf/app.ini").read_text() == "port = 2\n"
    assert not (share / app / "run.sh").exists()
    assert (project_files.version(share, app, old) / "run.sh").exists(), "a version that was replaced stays"

    assert clone(rest, app, ref=old[:9])["data"]["commit"] == old
    assert (share / app / "version").read_text() == "v1.0\n"
    (shown,) = rest.get("/file/")["data"]
    assert shown["age_seconds"] >= 0
    assert {name: shown[name] for name in ("project", "group", "ref", "commit", "files", "submodules")} == {
        "project": app, "group": GROUP, "ref": old[:9], "commit": old, "files": 3, "submodules": False,
    }  # fmt: skip
    assert not list(share.rglob(".git"))
    assert new != old


def test_everybody_may_read_what_was_cloned_and_nobody_the_mirrors(rest: Rest, share: Path, app: str) -> None:
    before = os.umask(0o077)
    try:
        clone(rest, app)
    finally:
        os.umask(before)
    for path in (share, *share.rglob("*")):
        inside = path.relative_to(share).parts
        if inside[:1] == (".mirrors",):
            continue
        if not path.is_symlink() and inside[:1] not in ((".locks",), (".known_hosts",)):
            wanted = 0o755 if path.is_dir() else 0o644
            assert path.stat().st_mode & wanted == wanted, path
    assert (share / ".mirrors").stat().st_mode & 0o777 == 0o700


def test_a_second_clone_fetches_only_what_is_new(rest: Rest, git_server: GitServer, app: str, share: Path) -> None:
    clone(rest, app)
    mirror = share / ".mirrors" / f"{app}.git"
    packs = set(mirror.rglob("*.pack"))
    clone(rest, app)
    assert set(mirror.rglob("*.pack")) == packs, "nothing is fetched when nothing is new"
    git_server.commit(f"{GROUP}/{app}", "main", {"new": b"x"})
    clone(rest, app)
    assert {pack.stat().st_ino for pack in packs} <= {pack.stat().st_ino for pack in mirror.rglob("*.pack")}


def test_a_shallow_clone_becomes_deep_when_an_old_commit_is_asked_for(
    rest: Rest, git_server: GitServer, app: str
) -> None:
    old = git_server.commit_id(f"{GROUP}/{app}", "v1.0")
    assert clone(rest, app, depth=1)["data"]["commit"] == git_server.commit_id(f"{GROUP}/{app}")
    assert clone(rest, app, ref=old)["data"]["commit"] == old
    assert clone(rest, app, ref="develop", depth=1)["data"]["commit"] == old


def test_a_branch_is_preferred_to_a_tag_of_the_same_name_and_may_be_moved_back(
    rest: Rest, git_server: GitServer, app: str
) -> None:
    name = f"{GROUP}/{app}"
    git_server.move_branch(name, "v1.0", "v1.1")
    assert clone(rest, app, ref="v1.0")["data"]["commit"] == git_server.commit_id(name, "refs/heads/v1.0")
    git_server.move_branch(name, "main", "refs/tags/v1.0")
    assert clone(rest, app)["data"]["commit"] == git_server.commit_id(name, "refs/heads/main")
    git_server.delete_branch(name, "develop")
    git_server.move_branch(name, "develop/deep", "main")  # where a branch was, there is a folder now
    assert clone(rest, app, ref="develop/deep")["data"]["commit"] == git_server.commit_id(name, "main")
    assert "no branch and no tag develop;" in clone(rest, app, 404, ref="develop")["msg"]


def test_submodules_come_along_when_they_are_asked_for(rest: Rest, git_server: GitServer, share: Path) -> None:
    library = new_project(git_server, {"lib.txt": b"lib\n"})
    app = new_project(git_server, submodules={"lib": f"{GROUP}/{library}"})
    assert clone(rest, app)["data"]["files"] == 2
    assert not (share / app / "lib/lib.txt").exists()
    assert clone(rest, app, submodules=True)["data"]["files"] == 4
    assert (share / app / "lib/lib.txt").read_text() == "lib\n"
    assert not list(share.rglob(".git"))
    (shown,) = rest.get("/file/")["data"]
    assert (shown["submodules"], shown["commit"]) == (True, git_server.commit_id(f"{GROUP}/{app}"))


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "conf/../../x", "/"])
def test_a_link_that_leaves_the_project_is_refused(rest: Rest, git_server: GitServer, share: Path, target: str) -> None:
    app = new_project(git_server, {"conf/a": b"", "bad": PurePosixPath(target)})
    answer = clone(rest, app, 409)
    assert "The link bad leads out of the project" in answer["msg"]
    assert entries(share) == set()


def test_links_within_the_project_are_kept(rest: Rest, git_server: GitServer, share: Path) -> None:
    app = new_project(git_server, {"conf/a": b"a", "good": PurePosixPath("conf/a"), "b/up": PurePosixPath("../conf")})
    assert clone(rest, app)["data"]["files"] == 4
    assert (share / app / "good").read_text() == (share / app / "b/up/a").read_text() == "a"


def failures(server: GitServer) -> dict[str, tuple[GitlabSettings, dict[str, Any], int, str]]:
    """How a clone fails: settings, fields, code, and what the answer says."""
    wrong_key = server.fleet.directory / "host_key"
    return {
        "unknown host key": (by_ssh(server, host_key_checking="yes"), {}, 502, "Host key verification failed"),
        "unknown project, Gitlab's words": (by_ssh(server), {"project_name": "no-such"}, 404, "could not be found"),
        "unknown project, git's words": (
            by_ssh(server), {"project_name": "no-such", "group": "plain"}, 404, "does not appear to be a git repository"
        ),
        "unknown project by https": (by_https(server), {"project_name": "no-such"}, 404, "not be found"),
        "unknown ref": (by_ssh(server), {"ref": "no-such"}, 404, "no branch and no tag no-such"),
        "unknown commit": (by_ssh(server), {"ref": "0123456789"}, 404, "no commit 0123456789"),
        "wrong key": (by_ssh(server, ssh_key_file=wrong_key), {}, 502, "do not accept each other"),
        "no key taken": (by_ssh(server, "no_auth"), {}, 502, "do not accept each other"),
        "wrong token": (
            by_https(server, url_template=server.https_template("glpat-wrong-token")), {}, 502, "not accept each other"
        ),
        "unknown authority": (by_https(server, ssl_ca=None), {}, 502, "certificate"),
        "refused connection": (
            by_ssh(server, url_template="ssh://git@127.0.0.1:1/{group}/{project}.git"), {}, 504, "does not answer"
        ),
        "unreachable": (by_ssh(server, "unreachable"), {}, 504, "does not answer"),
        "dropped connection": (by_ssh(server, "refused"), {}, 504, "does not answer"),
        "no such name": (
            by_https(server, url_template="https://no-such.invalid/{group}/{project}.git"), {}, 504, "does not answer"
        ),
        "another protocol": (by_ssh(server, url_template="http://127.0.0.1/{group}/{project}.git"), {}, 502, "http"),
        "a local path": (by_ssh(server, url_template="/{group}/{project}"), {}, 502, "'file' not allowed"),
    }  # fmt: skip


def test_each_failure_is_answered_with_its_own_words_and_leaves_nothing(
    git_server: GitServer, sqlite: Database, share: Path, app: str
) -> None:
    for case, (settings, fields, code, words) in failures(git_server).items():
        rest = Rest(sqlite, gitlab=settings, files_dir=share)
        answer = rest.post("/file/", {"project_name": app, **fields}, code)
        assert words in answer["msg"], (case, answer["msg"])
        assert "glpat" not in answer["msg"], case
        assert entries(share) == set(), case
        assert rest.get("/file/")["data"] == [], case
    assert set(rows_of(sqlite, audit.c.code, audit.c.action)) == {(code, "clone") for code in (404, 502, 504)}


@pytest.mark.parametrize("kind", ["no_banner", "blackhole", "hang"])
def test_a_gitlab_that_hangs_is_given_up_and_its_git_and_ssh_are_gone(
    git_server: GitServer, sqlite: Database, share: Path, app: str, kind: str
) -> None:
    rest = Rest(sqlite, gitlab=by_ssh(git_server, kind, clone_timeout=2), files_dir=share)
    answer = clone(rest, app, 504)
    assert "within 2 s" in answer["msg"]
    assert git_processes(share) == []
    assert entries(share) == set()


@pytest.mark.parametrize("way", [by_ssh, by_https])
def test_a_clone_that_stalls_half_way_leaves_the_version_before(
    git_server: GitServer, sqlite: Database, share: Path, app: str, way: Callable[..., GitlabSettings]
) -> None:
    name = f"{GROUP}/{app}"
    old = clone(Rest(sqlite, gitlab=way(git_server), files_dir=share), app)["data"]["commit"]
    new = git_server.commit(name, "main", {"big": os.urandom(1 << 20)})
    git_server.stall(name)
    try:
        answer = clone(Rest(sqlite, gitlab=way(git_server, clone_timeout=3), files_dir=share), app, 504)
    finally:
        git_server.go_on(name)
    assert "within 3 s" in answer["msg"]
    assert git_processes(share) == []
    assert os.readlink(share / app) == f".versions/{app}/{old}"
    assert clone(Rest(sqlite, gitlab=way(git_server), files_dir=share), app)["data"]["commit"] == new


def test_names_that_could_mean_something_else_are_refused(rest: Rest, share: Path) -> None:
    for name in (
        "", "..", ".", "a/../b", "/a", "-a", "--upload-pack=x", "a//b", "a/", "a b", "a;b", "a\nb", "ä", ".versions",
        "a/.b", "a/-b", "a.git", "x.lock", "$(id)", "a" * 201, "a..b", None, 7,
    ):  # fmt: skip
        assert rest.problems("/file/", {"project_name": name}).keys() == {"project_name"}, name
    for ref in (
        "",
        "-x",
        "--upload-pack=x",
        "a..b",
        "a b",
        "a~1",
        "a^",
        "a:b",
        "/a",
        "a/",
        "a//b",
        ".a",
        "@{u}",
        "a.lock/b",
    ):
        assert rest.problems("/file/", {"project_name": "a", "ref": ref}).keys() == {"ref"}, ref
    assert rest.problems("/file/", {"project_name": "a", "group": "../x", "depth": 0}).keys() == {"group", "depth"}
    assert not share.exists()


@pytest.mark.parametrize("name", ["..", "../x", "a..b", ".versions", "a/../b", "x" * 300, "\u00e4", "jobs/x", "a.git"])
def test_what_is_no_name_is_no_project_that_could_be_removed(rest: Rest, share: Path, name: str) -> None:
    assert rest.call("DELETE", f"/file/{name}/").status_code in (404, 405)
    assert rest.get(f"/file/jobs/{name}/", 404)
    assert not share.exists()


def test_a_name_of_another_group_or_inside_another_project_is_a_conflict(
    rest: Rest, git_server: GitServer, share: Path, app: str
) -> None:
    clone(rest, app)
    assert f"the one of the group {GROUP}" in clone(rest, app, 409, group="other")["msg"]
    assert f"inside or around {app}" in clone(rest, f"{app}/inside", 409)["msg"]
    git_server.create(f"{GROUP}/{app}-deep/part")
    assert clone(rest, f"{app}-deep/part")["data"]["files"] == 1
    assert (share / f"{app}-deep/part/version").exists()
    assert "inside or around" in clone(rest, f"{app}-deep", 409)["msg"]


def test_a_folder_that_no_clone_has_made_is_left_alone(rest: Rest, share: Path, app: str) -> None:
    (share / app).mkdir(parents=True)
    (share / app / "mine").touch()
    assert "not by a clone" in clone(rest, app, 409)["msg"]
    assert entries(share) == {f"{app}/mine"}


def test_without_a_group_the_request_has_to_name_one(git_server: GitServer, sqlite: Database, share: Path) -> None:
    rest = Rest(sqlite, gitlab=by_ssh(git_server, group=""), files_dir=share)
    assert rest.problems("/file/", {"project_name": "a"}).keys() == {"group"}


def test_a_default_branch_that_no_request_could_name_goes_by_its_commit(
    rest: Rest, git_server: GitServer, app: str
) -> None:
    name = f"{GROUP}/{app}"
    git_server.move_branch(name, "gr\u00f6\u00dfe", "main")
    (git_server.root / f"{name}.git" / "HEAD").write_text("ref: refs/heads/gr\u00f6\u00dfe\n")
    commit = git_server.commit_id(name, "main")
    found = clone(rest, app)["data"]
    assert (found["ref"], found["commit"]) == (commit, commit)


def test_a_broken_mirror_is_made_anew(rest: Rest, git_server: GitServer, share: Path, app: str) -> None:
    clone(rest, app)
    mirror = share / ".mirrors" / f"{app}.git"
    for pack in mirror.rglob("*.pack"):
        pack.chmod(0o644)
        pack.write_bytes(b"garbage")
    (mirror / "HEAD.lock").touch()
    new = git_server.commit(f"{GROUP}/{app}", "main", {"x": b"x"})
    assert clone(rest, app)["data"]["commit"] == new


def test_a_mirror_that_lacks_a_file_is_made_anew(rest: Rest, git_server: GitServer, share: Path, app: str) -> None:
    """As a disk that was full in the middle leaves it: git's checkout says so, and ends well."""
    name = f"{GROUP}/{app}"
    clone(rest, app)
    new = git_server.commit(name, "main", {"late": b"some text that is nowhere else"})
    mirror, origin = share / ".mirrors" / f"{app}.git", git_server.root / f"{name}.git"
    options = ["-c", "safe.directory=*", "-c", "fetch.unpackLimit=1000", "-C", mirror]
    subprocess.run(["git", *options, "fetch", "-q", origin, "+refs/heads/main:refs/heads/main"], check=True)
    blob = subprocess.run(["git", *options, "rev-parse", f"{new}:late"], check=True, capture_output=True, text=True)
    (mirror / "objects" / blob.stdout[:2] / blob.stdout[2:].strip()).unlink()
    assert clone(rest, app)["data"]["commit"] == new
    assert (share / app / "late").read_text() == "some text that is nowhere else"


def test_two_replicas_clone_one_project_at_the_same_time_and_one_does_the_work(
    database: Database, git_server: GitServer, share: Path
) -> None:
    replicas = [Rest(database, gitlab=by_ssh(git_server), files_dir=share) for _ in range(2)]
    for _ in range(5):
        app = new_project(git_server, {f"f{number}": b"x" * 100 for number in range(30)})
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda rest, app=app: clone(rest, app)["data"], replicas))
        assert len({answer["commit"] for answer in answers}) == 1
        assert len(list((share / ".mirrors" / f"{app}.git").rglob("*.pack"))) <= 1
        assert len(list((share / app).iterdir())) == 31
    assert list((share / ".versions/.new").iterdir()) == []


def test_a_clone_that_waits_too_long_for_another_one_is_a_conflict(
    git_server: GitServer, sqlite: Database, share: Path, app: str
) -> None:
    rest = Rest(sqlite, gitlab=by_ssh(git_server, clone_timeout=1), files_dir=share)
    with Tree(share).locked(app):
        assert "is being cloned by another request" in clone(rest, app, 409)["msg"]


def test_a_clone_in_the_background_shows_its_progress(rest: Rest, git_server: GitServer, app: str) -> None:
    name = f"{GROUP}/{app}"
    git_server.commit(name, "main", {f"big/{number}": os.urandom(200_000) for number in range(20)})
    git_server.stall(name, 2_000_000)
    begun = clone(rest, app, 202, **{"async": True})["data"]
    path = f"/file/jobs/{begun['job']}/"
    try:
        wait_for("the clone", lambda: (rest.get(path)["data"]["progress"] or {}).get("received", 0) > 0, 20)
        step = rest.get(path)["data"]
        assert step["state"] == "running"
        assert 0 < step["progress"]["percent"] < 100
        assert step["progress"]["total"] >= 20
        assert rest.get("/file/")["data"] == []
    finally:
        git_server.go_on(name)
    wait_for("the clone", lambda: rest.get(path)["data"]["state"] == "ready", 30)
    done = rest.get(path)["data"]
    assert done["result"]["commit"] == git_server.commit_id(name)
    assert (done["error"], done["project"]) == (None, app)


def test_a_clone_in_the_background_that_fails_says_why(rest: Rest) -> None:
    begun = clone(rest, "no-such", 202, **{"async": True})["data"]
    path = f"/file/jobs/{begun['job']}/"
    wait_for("the clone", lambda: rest.get(path)["data"]["state"] == "failed", 20)
    failed = rest.get(path)["data"]
    assert failed["error_code"] == 404
    assert "could not be found" in failed["error"]
    assert rest.get("/file/jobs/nope/", 404)["msg"] == "There is no clone nope."


def test_no_more_than_some_clones_run_in_one_process(git_server: GitServer, sqlite: Database, share: Path) -> None:
    rest = Rest(sqlite, gitlab=by_ssh(git_server, "no_banner", clone_timeout=3), files_dir=share)
    jobs = [clone(rest, f"app-{number}", 202, **{"async": True})["data"]["job"] for number in range(4)]
    response = rest.call("POST", "/file/", json={"project_name": "fifth"})
    assert opened(response, 503)["msg"].startswith("4 projects are being cloned here already")
    assert int(response.headers["Retry-After"]) > 0
    wait_for("the clone", lambda: all(rest.get(f"/file/jobs/{job}/")["data"]["error_code"] == 504 for job in jobs), 30)


def test_a_project_is_removed_and_its_files_stay_for_tasks_that_need_them(
    rest: Rest, share: Path, app: str, database: Database
) -> None:
    commit = clone(rest, app)["data"]["commit"]
    rest.submit("10.0.0.1", task_id="t", module="copy", args=f"src={app}/run.sh dest=/tmp/x")
    assert opened(rest.call("DELETE", f"/file/{app}/"))["data"] == {"project": app, "removed": True}
    assert opened(rest.call("DELETE", f"/file/{app}/"), 404)["msg"].startswith(f"There is no project {app}")
    assert rest.get("/file/")["data"] == []
    assert not (share / app).is_symlink()
    assert not (share / ".mirrors" / f"{app}.git").exists()
    sweep = Sweep(Tree(share), database, keep_seconds=0)
    sweep.round()
    assert project_files.version(share, app, commit).is_dir()
    end_task(database, "t")
    sweep.round()
    sweep.round()
    assert entries(share) == set()


def test_a_task_is_pinned_to_what_was_ready_when_it_came(
    rest: Rest, git_server: GitServer, database: Database, share: Path, app: str
) -> None:
    old = clone(rest, app, ref="v1.0")["data"]["commit"]
    rest.submit("10.0.0.1", task_id="before", module="copy", args=f"src={app}/run.sh dest=/tmp/x")
    new = clone(rest, app)["data"]["commit"]
    rest.submit("10.0.0.1", task_id="after", module="copy", args=f"src={app}/run.sh dest=/tmp/x")
    rest.submit("10.0.0.1", task_id="by-ref", module="shell", project_ref={app: "v1.0"})
    rest.submit("10.0.0.1", task_id="by-commit", module="shell", project_ref={app: old[:8]})
    for task_id, commit in (("before", old), ("after", new), ("by-ref", old), ("by-commit", old)):
        assert rest.get(f"/tasks/{task_id}/")["data"]["projects"] == {app: commit}
    needs = rows_of(database, task.c.id, task.c.needs_files)
    assert dict(needs) == {"before": True, "after": True, "by-ref": False, "by-commit": False}
    body = adhoc("10.0.0.1", task_id="wrong", project_ref={app: "no-such", "other": "v1.0"})
    assert rest.problems("/adhoc/", body).keys() == {f"project_ref.{app}", "project_ref.other"}
    assert rest.problems("/adhoc/", {**body, "project_ref": {"../x": "v1.0", app: "-x", "b": 7}}).keys() == {
        "project_ref.../x", f"project_ref.{app}", "project_ref.b",
    }  # fmt: skip
    assert rest.get("/tasks/wrong/", 404)


def test_a_rerun_sees_what_the_task_before_saw_as_long_as_it_is_kept(
    rest: Rest, database: Database, share: Path, app: str
) -> None:
    old = clone(rest, app, ref="v1.0")["data"]["commit"]
    rest.submit("10.0.0.1", task_id="t")
    end_task(database, "t")
    new = clone(rest, app)["data"]["commit"]
    again = rest.post("/tasks/t/rerun/", {"task_id": "again", "statuses": ["failed"]})["data"]
    assert (again["warnings"], rest.get("/tasks/again/")["data"]["projects"]) == ([], {app: old})
    end_task(database, "again")
    sweep = Sweep(Tree(share), database, keep_seconds=0)
    sweep.round()
    sweep.round()
    assert not project_files.version(share, app, old).exists()
    late = rest.post("/tasks/t/rerun/", {"task_id": "late", "statuses": ["failed"]})["data"]
    assert late["warnings"] == [f"project {app}: {old[:12]} is kept no more, this task sees {new[:12]}"]
    assert rest.get("/tasks/late/")["data"]["projects"] == {app: new}


def test_a_version_is_kept_for_its_time_and_while_a_task_needs_it(
    rest: Rest, database: Database, share: Path, app: str
) -> None:
    old = clone(rest, app, ref="v1.0")["data"]["commit"]
    rest.submit("10.0.0.1", task_id="t")
    new = clone(rest, app)["data"]["commit"]
    patient, hasty = (Sweep(Tree(share), database, keep_seconds=seconds) for seconds in (600, 0))
    hasty.round()
    hasty.round()
    assert project_files.version(share, app, old).is_dir(), "the task needs it"
    end_task(database, "t")
    patient.round()
    patient.round()
    assert project_files.version(share, app, old).is_dir(), "its time is not over"
    hasty.round()
    hasty.round()
    assert not project_files.version(share, app, old).exists()
    assert project_files.version(share, app, new).is_dir()
    assert rows_of(database, project_version.c.commit_id) == [(new,)]


def test_what_dead_ones_left_is_swept_and_links_are_put_right(
    rest: Rest, database: Database, share: Path, app: str
) -> None:
    commit = clone(rest, app)["data"]["commit"]
    tree = Tree(share)
    left = tree.new_version("left/behind")
    left.mkdir()
    (left / "half").touch()
    nobodys = project_files.version(share, "nobodys", "0" * 40)
    nobodys.mkdir(parents=True)
    (share / app).unlink()
    with tree.locked("busy"):
        busy = tree.new_version("busy")
        busy.mkdir()
        sweep = Sweep(tree, database, keep_seconds=0)
        sweep.round()
        sweep.round()
        assert busy.is_dir()
    assert not left.exists()
    assert not nobodys.exists()
    assert os.readlink(share / app) == f".versions/{app}/{commit}"


@pytest.mark.parametrize("size", ["3m", "9m"], ids=["git", "files"])
def test_a_full_share_is_answered_and_leaves_the_version_before(
    git_server: GitServer, sqlite: Database, share: Path, app: str, size: str
) -> None:
    """What does not fit any more: what git fetches, or the files of the new version."""
    rest = Rest(sqlite, gitlab=by_ssh(git_server), files_dir=share)
    share.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", share], check=True)
    try:
        old = clone(rest, app)["data"]["commit"]
        before = entries(share)
        git_server.commit(f"{GROUP}/{app}", "main", {"big": os.urandom(5 << 20)})
        assert "no room left" in clone(rest, app, 507)["msg"]
        assert entries(share) == before
        assert os.readlink(share / app) == f".versions/{app}/{old}"
        subprocess.run(["mount", "-o", "remount,size=30m", share], check=True)
        assert clone(rest, app)["data"]["bytes"] > 5 << 20
    finally:
        subprocess.run(["umount", share], check=True)


def test_a_large_project_takes_git_s_time_and_little_memory(
    git_server: GitServer, sqlite: Database, share: Path
) -> None:
    """200 MiB: git streams them to disk, and nothing of them goes through this process."""
    _, _, big = git_server.big().rpartition("/")
    rest = Rest(sqlite, gitlab=by_ssh(git_server, group="ci-cd"), files_dir=share)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    first = clone(rest, big)["data"]
    again = clone(rest, big)["data"]
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (first["files"], first["bytes"] >> 20) == (201, 200)
    assert again["seconds"] < first["seconds"]
    assert grown_kib < 50_000


def test_no_secret_of_gitlab_is_in_arguments_environments_or_files_of_the_share(
    git_server: GitServer, sqlite: Database, share: Path, app: str
) -> None:
    """While a clone by https is under way."""
    token = git_server.https_template().partition("oauth2:")[2].partition("@")[0]
    name = f"{GROUP}/{app}"
    git_server.commit(name, "main", {"big": os.urandom(1 << 20)})
    git_server.stall(name)
    rest = Rest(sqlite, gitlab=by_https(git_server), files_dir=share)
    begun = clone(rest, app, 202, **{"async": True})["data"]
    try:
        wait_for("the clone", lambda: any(b"fetch" in arguments for arguments, _ in git_processes(share)), 20)
        seen = git_processes(share)
        assert not [one for one in seen if token.encode() in one[0] + one[1]]
    finally:
        git_server.go_on(name)
    wait_for("the clone", lambda: rest.get(f"/file/jobs/{begun['job']}/")["data"]["state"] == "ready", 30)
    assert not [path for path in share.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]


def git_processes(share: Path) -> list[tuple[bytes, bytes]]:
    """Arguments and environment of every git and ssh that works for this share."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            arguments, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except (OSError, ValueError):
            continue
        if (
            process.name.isdecimal()
            and process.name != str(os.getpid())
            and str(share).encode() in arguments + environment
        ):
            found.append((arguments, environment))
    return found


def rows_of(database: Database, *columns: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in database.read(lambda connection: connection.execute(sa.select(*columns)).all())]


def end_task(database: Database, task_id: str) -> None:
    from contract.tables import host_result

    def end(connection: sa.Connection) -> None:
        key = connection.scalar(sa.select(task.c.key).where(task.c.id == task_id))
        connection.execute(sa.update(task).where(task.c.key == key).values(state="finished"))
        connection.execute(sa.update(host_result).where(host_result.c.task_key == key).values(status="failed"))

    database.write(end)

"""Whether the share answers, as a child finds out; the moments are the test's."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from execute_engine import former
from execute_engine.share_probe import DEADLINE_SECONDS, LOOK_SECONDS, ShareProbe
from tests.servers.process import wait_for


class Probe(ShareProbe):
    """A probe whose time goes by when the test says so."""

    moment = 1000.0

    def looked(self) -> tuple[bool, str | None]:
        """After one more look, which must end."""
        self.moment += LOOK_SECONDS
        self.turn(self.moment)
        self.to_its_end()
        return self.answers, self.problem(self.moment)

    def to_its_end(self) -> None:
        def ended() -> bool:
            self.turn(self.moment)
            return self.source() is None

        wait_for("the look's end", ended)

    def after(self, seconds: float) -> tuple[bool, str | None]:
        self.moment += seconds
        self.turn(self.moment)
        return self.answers, self.problem(self.moment)


@pytest.fixture
def probe(tmp_path: Path) -> Iterator[Probe]:
    found = Probe(tmp_path, {"OF_THIS_TEST": str(tmp_path)})
    yield found
    found.close()
    found.to_its_end()


def children(folder: Path) -> list[psutil.Process]:
    """The looks that have not ended, also those whose end nobody has asked for yet."""
    return [child for child in psutil.Process().children() if str(folder) in " ".join(child.cmdline())]


def away(folder: Path, why: str) -> tuple[bool, str]:
    return False, f"project files cannot be read, the share at {folder} is away: {why}"


def test_nothing_is_known_before_the_first_answer_and_that_is_no_trouble(probe: Probe) -> None:
    assert (probe.answers, probe.problem(probe.moment)) == (False, None)
    assert probe.due_at() <= probe.moment


def test_the_share_answers_when_its_mark_has_text(probe: Probe, tmp_path: Path) -> None:
    mark = tmp_path / ".share"
    mark.write_text("the share\n")
    assert probe.looked() == (True, None)
    mark.unlink()
    assert probe.looked() == away(tmp_path, "not mounted, there is no .share")
    mark.touch()
    assert probe.looked() == away(tmp_path, "its .share is empty")
    mark.unlink()
    mark.mkdir()
    assert probe.looked() == away(tmp_path, "Is a directory")
    mark.rmdir()
    mark.write_text("the share\n")
    assert probe.looked() == (True, None)


def test_a_change_is_told_once(probe: Probe, tmp_path: Path) -> None:
    (tmp_path / ".share").write_text("the share\n")
    changes = []
    for _ in range(3):
        probe.moment += LOOK_SECONDS
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            changes.append(probe.turn(probe.moment))
            if probe.source() is None:
                break
    assert changes.count(True) == 1


def test_a_share_that_hangs_is_left_until_its_deadline_and_then_named(probe: Probe, tmp_path: Path) -> None:
    mark = tmp_path / ".share"
    mark.write_text("the share\n")
    assert probe.looked() == (True, None)
    mark.unlink()
    os.mkfifo(mark)  # to open it blocks
    assert probe.after(LOOK_SECONDS) == (True, None)
    assert len(children(tmp_path)) == 1
    assert probe.after(DEADLINE_SECONDS - 1) == (True, None)
    assert probe.due_at() == probe.moment + 1
    assert probe.after(2) == away(tmp_path, f"reading it hangs for {DEADLINE_SECONDS + 1:.0f} s")
    probe.to_its_end()  # this one could be killed
    for seconds in (LOOK_SECONDS, DEADLINE_SECONDS):  # and so the next one hangs, as long as the first
        assert "reading it hangs for " in str(probe.after(seconds)[1])
    probe.to_its_end()
    assert not children(tmp_path)
    mark.unlink()
    mark.write_text("the share\n")
    assert probe.looked() == (True, None)


def test_while_a_look_hangs_no_other_is_started(probe: Probe, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".share")
    probe.turn(probe.moment)
    (child,) = children(tmp_path)
    assert child.environ()["OF_THIS_TEST"] == str(tmp_path)
    for _ in range(5):
        probe.after(0.9)
        assert children(tmp_path) == [child]
    probe.close()
    wait_for("the child's end", lambda: child.status() == psutil.STATUS_ZOMBIE)


def test_a_look_that_an_engine_has_left_is_ended_by_the_next(tmp_path: Path) -> None:
    """And not by its own launcher, which ends all that carries its incarnation's mark."""
    os.mkfifo(tmp_path / ".share")
    probe = Probe(tmp_path, former.of_state_dir(tmp_path))
    probe.turn(probe.moment)
    (child,) = children(tmp_path)
    assert former.of_incarnation("mine") == set()
    assert former.kill_former(tmp_path, "mine") == []
    wait_for("the child's end", lambda: child.status() == psutil.STATUS_ZOMBIE)
    probe.to_its_end()

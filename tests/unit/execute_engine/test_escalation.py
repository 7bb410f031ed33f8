"""Become's prompt and success mark: answered once, kept out of the output, wherever the network cuts the bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible.errors import AnsibleError

from execute_engine.ssh.command import BecomePrompt, Escalation

PROMPT = BecomePrompt(
    name="sudo",
    waits_for_prompt=True,
    password="päss word",
    is_prompt=lambda line: line.strip() == b"PROMPT:",
    is_success=lambda line: b"SUCCESS-abc" in line,
    is_incorrect=lambda line: b"try again" in line,
    is_missing=lambda line: b"password is required" in line,
    timeout_seconds=12,
)
NO_PASSWORD = replace(PROMPT, waits_for_prompt=False, password=None)
ANSWER = "päss word\n".encode()
OUT, ERR = 0, 1


def fed(escalation: Escalation, *pieces: bytes, stream: int = OUT) -> tuple[bytes, bytes]:
    """All that was answered and all that was kept."""
    answers, kept = zip(*(escalation.feed(stream, piece) for piece in pieces), strict=True)
    return b"".join(answers), b"".join(kept)


def test_the_password_answers_the_prompt_and_the_mark_ends_it() -> None:
    escalation = Escalation(PROMPT)
    assert escalation.feed(ERR, b"PROMPT:") == (ANSWER, b"")
    assert not escalation.done
    assert escalation.feed(OUT, b"SUCCESS-abc\n") == (b"", b"")
    assert escalation.done
    assert (escalation.rest(OUT), escalation.rest(ERR)) == (b"", b"")


def test_where_sudo_asks_for_nothing_the_mark_alone_ends_it() -> None:
    for prompt in (PROMPT, NO_PASSWORD):
        escalation = Escalation(prompt)
        assert escalation.feed(OUT, b"SUCCESS-abc\n") == (b"", b"")
        assert escalation.done


def test_what_comes_with_the_mark_is_the_commands_own_output() -> None:
    escalation = Escalation(NO_PASSWORD)
    assert escalation.feed(OUT, b"banner\nSUCCESS-abc\nline\nhalf a li") == (b"", b"banner\nline\n")
    assert escalation.done
    assert escalation.rest(OUT) == b"half a li"
    assert escalation.rest(OUT) == b""


TALK = b"Welcome\nPROMPT:\nSUCCESS-abc\nfirst\nsecond"


@pytest.mark.parametrize("size", [*range(1, 12), len(TALK)])
def test_bytes_may_be_cut_anywhere(size: int) -> None:
    escalation = Escalation(PROMPT)
    pieces = [TALK[at : at + size] for at in range(0, len(TALK), size)]
    answered, output = b"", b""
    for piece in pieces:
        if escalation.done:  # as the session does: from here on nothing is looked at any more
            output += piece
            continue
        answer, kept = escalation.feed(OUT, piece)
        answered += answer
        output += kept
        if escalation.done:
            output += escalation.rest(OUT)
    assert answered == ANSWER
    assert output.removeprefix(b"Welcome\n").removeprefix(b"\n") == b"first\nsecond"


@pytest.mark.parametrize("again", [b"\nSorry, try again.\n", b"\nPROMPT:"])
def test_a_wrong_password_is_said_and_not_given_again(again: bytes) -> None:
    escalation = Escalation(PROMPT)
    assert escalation.feed(OUT, b"PROMPT:")[0] == ANSWER
    with pytest.raises(AnsibleError, match="Incorrect sudo password"):
        escalation.feed(OUT, again)


def test_a_missing_password_is_said() -> None:
    with pytest.raises(AnsibleError, match="Missing sudo password"):
        fed(Escalation(NO_PASSWORD), b"sudo: a password is required\n", stream=ERR)


def test_without_a_password_a_prompt_is_not_answered_with_an_empty_one() -> None:
    escalation = Escalation(NO_PASSWORD)
    assert escalation.feed(OUT, b"PROMPT:") == (b"", b"")
    assert not escalation.done


def test_both_streams_are_kept_apart() -> None:
    escalation = Escalation(NO_PASSWORD)
    assert escalation.feed(ERR, b"SUCC") == (b"", b"")
    assert escalation.feed(OUT, b"ESS-abc\n") == (b"", b"ESS-abc\n")
    assert not escalation.done
    assert escalation.feed(ERR, b"ESS-abc\n") == (b"", b"")
    assert escalation.done


def test_the_password_is_not_in_the_repr() -> None:
    assert "word" not in repr(PROMPT)

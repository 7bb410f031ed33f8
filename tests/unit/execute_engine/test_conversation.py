from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from execute_engine.conversation import Conversation
from execute_engine.events import Decoder, encode
from execute_engine.job import Job
from tests.unit.execute_engine.jobs import job


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def test_a_job_larger_than_the_socket_is_handed_over_piece_by_piece(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    big = job(playbook_content="x" * 5_000_000)
    conversation = Conversation(ours, big)
    decoder, found = Decoder(), []
    conversation.send()
    assert conversation.has_unsent
    while not found:
        conversation.send()
        found = decoder.feed(theirs.recv(1 << 20))
    assert Job.from_json(found[0]) == big
    assert not conversation.has_unsent


def test_events_are_read_to_the_end_of_the_socket(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    conversation = Conversation(ours, job())
    assert conversation.receive() == []
    theirs.sendall(encode({"event": "a"}) + encode({"event": "b"}))
    theirs.close()
    assert conversation.receive() == [{"event": "a"}, {"event": "b"}]
    assert conversation.closed


def test_bytes_that_are_no_event_end_it(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    conversation = Conversation(ours, job())
    theirs.sendall(encode({"event": "a"}))
    assert conversation.receive() == [{"event": "a"}]
    theirs.sendall(b"\xff" * 16)
    assert conversation.receive() == []
    assert conversation.closed
    assert "frame" in str(conversation.broken)


def test_a_runner_that_is_gone_takes_no_job(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    conversation = Conversation(ours, job())
    theirs.close()
    conversation.send()
    assert not conversation.has_unsent
    conversation.receive()
    assert conversation.closed

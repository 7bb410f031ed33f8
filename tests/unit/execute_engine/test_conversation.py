from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from execute_engine.conversation import FLOW_BYTES, Conversation
from execute_engine.events import Decoder, HostDone, encode
from execute_engine.job import Job
from execute_engine.output import Cleaner
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
    conversation = Conversation(ours, big, Cleaner())
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
    conversation = Conversation(ours, job(), Cleaner())
    assert conversation.receive() == []
    theirs.sendall(encode({"event": "a"}) + encode({"event": "b"}))
    theirs.close()
    assert conversation.receive() == [{"event": "a"}, {"event": "b"}]
    assert conversation.closed


def test_it_flows_while_the_runner_may_wait_for_room(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    conversation = Conversation(ours, job(), Cleaner())
    theirs.sendall(encode({"event": "a", "text": "x" * FLOW_BYTES}))
    assert len(conversation.receive()) == 1
    assert conversation.flows
    theirs.sendall(encode({"event": "a"}))
    assert len(conversation.receive()) == 1
    assert not conversation.flows


def test_bytes_that_are_no_event_end_it(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    conversation = Conversation(ours, job(), Cleaner())
    theirs.sendall(encode({"event": "a"}))
    assert conversation.receive() == [{"event": "a"}]
    theirs.sendall(b"\xff" * 16)
    assert conversation.receive() == []
    assert conversation.closed
    assert "frame" in str(conversation.broken)


def test_a_runner_that_is_gone_takes_no_job(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    conversation = Conversation(ours, job(), Cleaner())
    theirs.close()
    conversation.send()
    assert not conversation.has_unsent
    conversation.receive()
    assert conversation.closed


def test_events_lose_the_secrets_of_the_configuration(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    conversation = Conversation(ours, job(), Cleaner(["db.example.com"]))
    done = HostDone("db.example.com", "success", stdout="at db.example.com", detail={"cmd": ["psql", "db.example.com"]})
    theirs.sendall(encode(done.to_event()))
    (event,) = conversation.receive()
    assert HostDone.from_event(event) == replace(done, stdout="at ***", detail={"cmd": ["psql", "***"]})


@pytest.mark.parametrize("text", ["[]", "1", "null", '{"event": ' + 900 * "[" + 900 * "]" + "}", 5000 * "["])
def test_what_is_no_event_ends_it_and_costs_nothing_else(ends: tuple[socket.socket, socket.socket], text: str) -> None:
    ours, theirs = ends
    conversation = Conversation(ours, job(), Cleaner())
    theirs.sendall(struct.pack(">I", len(text)) + text.encode())
    conversation.receive()
    theirs.close()
    conversation.receive()
    assert conversation.closed

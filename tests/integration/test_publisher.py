"""The publisher against a real broker: the topic, the round over its partitions, and an outcome for each message."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from contract.config import KafkaSettings
from contract.message import UnitMessage
from distribute import publisher
from distribute.publisher import Outcome, Publisher, client_arguments
from tests.integration.test_subscription import create, message
from tests.servers.kafka import KafkaCluster
from tests.servers.process import free_ports, wait_for

PARTITIONS = 3
Start = Callable[[KafkaSettings], Publisher]


@pytest.fixture
def settings(kafka: KafkaCluster, topic: str) -> KafkaSettings:
    return settings_of(kafka, topic)


def settings_of(cluster: KafkaCluster, topic: str) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=tuple(cluster.bootstrap.split(",")), topic=topic, group_id=topic, partitions=PARTITIONS
    )


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """A publisher at work, with a client that gives up sooner than in a service."""

    def quick(settings: KafkaSettings) -> dict[str, object]:
        return {**client_arguments(settings), "bootstrap_timeout_ms": 1000, "request_timeout_ms": 2000}

    monkeypatch.setattr(publisher, "client_arguments", quick)
    monkeypatch.setattr(publisher, "RETRY_SECONDS", 0.1)
    started: list[Publisher] = []

    def start(settings: KafkaSettings) -> Publisher:
        started.append(Publisher(settings))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.close()
    for one in started:
        one.join(60)
        assert not one._thread.is_alive()


def wait_connected(tested: Publisher) -> None:
    wait_for("the publisher to be connected", lambda: not tested.problem())


def outcomes_of(tested: Publisher, messages: Sequence[UnitMessage]) -> list[Outcome]:
    """Send them, and wait for as many outcomes."""
    found: list[Outcome] = []

    def all_there() -> bool:
        found.extend(tested.outcomes())
        return len(found) >= len(messages)

    tested.send(messages)
    wait_for("the outcomes", all_there)
    return found


def partitions_of(settings: KafkaSettings) -> int:
    admin = KafkaAdminClient(bootstrap_servers=list(settings.bootstrap_servers))
    try:
        return len(admin.describe_topics([settings.topic])[0]["partitions"])
    finally:
        admin.close()


def stored(settings: KafkaSettings) -> list[tuple[int, UnitMessage]]:
    """Every message of the topic with its partition."""
    consumer = KafkaConsumer(bootstrap_servers=list(settings.bootstrap_servers), auto_offset_reset="earliest")
    try:
        partitions = [
            TopicPartition(settings.topic, number) for number in consumer.partitions_for_topic(settings.topic)
        ]
        consumer.assign(partitions)
        left = sum(consumer.end_offsets(partitions).values())
        found: list[tuple[int, UnitMessage]] = []
        while len(found) < left:
            for records in consumer.poll(timeout_ms=1000).values():
                found += [(record.partition, UnitMessage.decode(record.value)) for record in records]
        return found
    finally:
        consumer.close()


def test_a_missing_topic_is_made_and_each_message_reaches_it_with_an_outcome(
    settings: KafkaSettings, start: Start
) -> None:
    tested = start(settings)
    assert tested.problem().startswith(f"waiting for Kafka {settings.bootstrap_servers[0]} for ")
    wait_connected(tested)
    assert tested.partitions == partitions_of(settings) == PARTITIONS
    messages = [message(number) for number in range(30)]
    assert sorted(outcomes_of(tested, messages), key=lambda outcome: outcome.unit_id) == [
        Outcome(number, True) for number in range(30)
    ]
    assert list(tested.outcomes()) == []
    found = stored(settings)
    assert sorted((one for _, one in found), key=lambda one: one.unit_id) == messages
    assert Counter(partition for partition, _ in found) == {0: 10, 1: 10, 2: 10}


def test_messages_that_are_given_one_by_one_go_to_the_partitions_in_turn(settings: KafkaSettings, start: Start) -> None:
    tested = start(settings)
    wait_connected(tested)
    for number in range(6):
        assert outcomes_of(tested, [message(number)]) == [Outcome(number, True)]
    where = {one.unit_id: partition for partition, one in stored(settings)}
    assert [where[number] for number in range(6)] == [0, 1, 2, 0, 1, 2]


def test_a_topic_with_too_few_partitions_is_grown_and_all_of_them_are_used(
    kafka: KafkaCluster, settings: KafkaSettings, start: Start
) -> None:
    create(kafka.bootstrap, settings.topic, partitions=1)
    tested = start(settings)
    wait_connected(tested)
    assert tested.partitions == partitions_of(settings) == PARTITIONS
    outcomes_of(tested, [message(number) for number in range(9)])
    assert Counter(partition for partition, _ in stored(settings)) == {0: 3, 1: 3, 2: 3}


def test_a_topic_with_more_partitions_stays_as_it_is(
    kafka: KafkaCluster, settings: KafkaSettings, start: Start
) -> None:
    create(kafka.bootstrap, settings.topic, partitions=PARTITIONS + 2)
    tested = start(settings)
    wait_connected(tested)
    assert tested.partitions == partitions_of(settings) == PARTITIONS + 2


def test_dispatchers_that_make_the_topic_at_once_all_go_on(settings: KafkaSettings, start: Start) -> None:
    several = [start(settings) for _ in range(3)]
    for number, tested in enumerate(several):
        wait_connected(tested)
        assert outcomes_of(tested, [message(number)]) == [Outcome(number, True)]


def test_a_topic_that_was_deleted_is_made_again(
    settings: KafkaSettings, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "DELIVERY_SECONDS", 4.0)
    monkeypatch.setattr(publisher, "METADATA_SECONDS", 1.0)
    tested = start(settings)
    wait_connected(tested)
    admin = KafkaAdminClient(bootstrap_servers=list(settings.bootstrap_servers))
    admin.delete_topics([settings.topic])
    wait_for("the topic to be gone", lambda: admin.describe_topics([settings.topic])[0]["error_code"])
    admin.close()

    def one_arrives() -> bool:
        (outcome,) = outcomes_of(tested, [message(1)])
        return outcome.is_sent

    wait_for("a message to reach the new topic", one_arrives)
    assert partitions_of(settings) == PARTITIONS
    assert message(1) in [one for _, one in stored(settings)]


def test_while_no_broker_answers_nothing_blocks_and_every_message_fails(topic: str, start: Start) -> None:
    (port,) = free_ports(1)
    tested = start(KafkaSettings(bootstrap_servers=(f"127.0.0.1:{port}",), topic=topic))
    begun = time.monotonic()
    tested.send([message(1), message(2)])
    assert tested.problem().startswith(f"waiting for Kafka 127.0.0.1:{port} for ")
    assert time.monotonic() - begun < 1
    found: list[Outcome] = []

    def all_there() -> bool:
        found.extend(tested.outcomes())
        return len(found) == 3

    tested.send([message(3)])
    wait_for("the outcomes", all_there)
    assert found == [Outcome(number, False) for number in (1, 2, 3)]
    assert tested.problem()
    assert tested.partitions == 0


def test_a_broker_that_goes_and_comes_back_is_told_of_and_used_again(
    server_directory: Path, topic: str, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(publisher, "DELIVERY_SECONDS", 4.0)
    monkeypatch.setattr(publisher, "METADATA_SECONDS", 1.0)
    cluster = KafkaCluster(server_directory)
    cluster.start()
    try:
        settings = settings_of(cluster, topic)
        tested = start(settings)
        wait_connected(tested)
        assert outcomes_of(tested, [message(1)]) == [Outcome(1, True)]
        cluster.kill(1)
        assert set(outcomes_of(tested, [message(2), message(3)])) == {Outcome(2, False), Outcome(3, False)}
        wait_for("the problem to be told", tested.problem)
        assert outcomes_of(tested, [message(4)]) == [Outcome(4, False)]
        assert tested.problem().startswith(f"waiting for Kafka {cluster.bootstrap} for ")
        assert caplog.text.count("Kafka cannot be used, trying again") == 1

        cluster.start_broker(1)
        wait_connected(tested)
        assert outcomes_of(tested, [message(5)]) == [Outcome(5, True)]
        assert {1, 5} <= {one.unit_id for _, one in stored(settings)} <= {1, 2, 3, 5}
    finally:
        cluster.stop()


def test_a_broker_that_hangs_fails_the_messages_in_time(
    server_directory: Path, topic: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "DELIVERY_SECONDS", 4.0)
    cluster = KafkaCluster(server_directory)
    cluster.start()
    try:
        tested = start(settings_of(cluster, topic))
        wait_connected(tested)
        cluster.pause(1)
        begun = time.monotonic()
        assert outcomes_of(tested, [message(1)]) == [Outcome(1, False)]
        assert time.monotonic() - begun < 3 * publisher.DELIVERY_SECONDS
        wait_for("the problem to be told", tested.problem)
        cluster.resume(1)
        wait_connected(tested)
        assert outcomes_of(tested, [message(2)]) == [Outcome(2, True)]
    finally:
        cluster.stop()


def test_a_publisher_that_is_closed_ends_at_once(settings: KafkaSettings, start: Start) -> None:
    tested = start(replace(settings, partitions=1))
    wait_connected(tested)
    tested.close()
    tested.join(10)
    assert not tested._thread.is_alive()

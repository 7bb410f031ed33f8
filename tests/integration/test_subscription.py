"""The Kafka thread against a real broker."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from contract.config import KafkaSettings
from contract.message import UnitMessage
from execute_engine import subscription
from execute_engine.subscription import Delivery, Subscription, client_arguments
from tests.servers.kafka import KafkaCluster
from tests.servers.process import free_ports, wait_for

PATIENCE_SECONDS = 120.0
MEMBER = """
import sys
from kafka import KafkaConsumer
member = KafkaConsumer(sys.argv[2], bootstrap_servers=sys.argv[1], group_id=sys.argv[2])
told = False
while True:
    member.poll(100)
    if member.assignment() and not told:
        told = True
        print("in", flush=True)
"""
Subscribe = Callable[[], Subscription]


def message(unit_id: int) -> UnitMessage:
    return UnitMessage(unit_id, "t", "adhoc", 1, 30)


def create(bootstrap: str, topic: str, partitions: int = 1) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1)])
    admin.close()


def send(bootstrap: str, topic: str, *values: bytes, partition: int = 0) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
    for value in values:
        producer.send(topic, value, partition=partition)
    producer.flush(PATIENCE_SECONDS)
    producer.close()


def committed(settings: KafkaSettings, partition: int = 0) -> int | None:
    consumer = KafkaConsumer(bootstrap_servers=list(settings.bootstrap_servers), group_id=settings.group_id)
    try:
        offset: int | None = consumer.committed(TopicPartition(settings.topic, partition))
        return offset
    finally:
        consumer.close()


def take(tested: Subscription, seconds: float = PATIENCE_SECONDS) -> Delivery:
    return wait_for("a message", tested.take, seconds)


def nothing_comes(tested: Subscription, seconds: float = 1.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if tested.take() is not None:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def settings(kafka: KafkaCluster, topic: str) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=(kafka.bootstrap,), group_id=topic, topic=topic)


@pytest.fixture
def subscribe(settings: KafkaSettings) -> Iterator[Subscribe]:
    made: list[Subscription] = []

    def subscribe() -> Subscription:
        made.append(Subscription(settings, f"test-{len(made)}", lambda: None))
        made[-1].start()
        return made[-1]

    yield subscribe
    for one in made:
        one.close()
    for one in made:
        assert one.join(PATIENCE_SECONDS)


def test_one_message_is_out_at_a_time_and_committed_when_it_is_done(
    kafka: KafkaCluster, settings: KafkaSettings, subscribe: Subscribe
) -> None:
    create(kafka.bootstrap, settings.topic)
    send(kafka.bootstrap, settings.topic, *(message(n).encode() for n in (1, 2, 3)))
    tested = subscribe()
    for number in (1, 2, 3):
        delivery = take(tested)
        assert delivery.message == message(number)
        assert nothing_comes(tested, 0.5)
        assert committed(settings) == (number - 1 or None)
        tested.done(delivery)
        wait_for("the commit", lambda number=number: committed(settings) == number)  # type: ignore[misc]
    assert tested.problem() is None


def test_what_waits_in_its_partitions_is_known_while_a_message_is_out_too(
    kafka: KafkaCluster, settings: KafkaSettings, subscribe: Subscribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "LAG_SECONDS", 0.2)
    create(kafka.bootstrap, settings.topic)
    tested = subscribe()
    wait_for("an answer", lambda: tested.lag == 0)
    send(kafka.bootstrap, settings.topic, message(1).encode())
    delivery = take(tested)
    wait_for("the one that is out", lambda: tested.lag == 1)
    send(kafka.bootstrap, settings.topic, *(message(n).encode() for n in (2, 3)))
    wait_for("all", lambda: tested.lag == 3)
    tested.done(delivery)
    tested.done(take(tested))
    wait_for("the last one", lambda: tested.lag == 1)
    assert tested.silent_seconds() < PATIENCE_SECONDS


def test_what_was_done_is_committed_at_the_end_at_the_latest(
    kafka: KafkaCluster, settings: KafkaSettings, subscribe: Subscribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "COMMIT_SECONDS", 600.0)
    create(kafka.bootstrap, settings.topic)
    send(kafka.bootstrap, settings.topic, *(message(n).encode() for n in (1, 2, 3)))
    tested = subscribe()
    tested.done(take(tested))
    tested.done(take(tested))
    assert take(tested).message == message(3)
    assert committed(settings) is None
    tested.close()
    assert tested.join(PATIENCE_SECONDS)
    assert committed(settings) == 2


def test_what_was_not_done_comes_again_to_the_next_one(
    kafka: KafkaCluster, settings: KafkaSettings, subscribe: Subscribe
) -> None:
    create(kafka.bootstrap, settings.topic)
    send(kafka.bootstrap, settings.topic, message(1).encode(), message(2).encode())
    first = subscribe()
    first.done(take(first))
    assert take(first).message == message(2)
    first.close()
    assert first.join(PATIENCE_SECONDS)
    assert take(subscribe()).message == message(2)


def test_a_message_held_for_long_does_not_cost_the_partition(
    kafka: KafkaCluster, settings: KafkaSettings, subscribe: Subscribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that does not poll for max_poll_interval loses its partitions; a full engine polls on."""

    def impatient(settings: KafkaSettings, client_id: str) -> dict[str, object]:
        return {**client_arguments(settings, client_id), "max_poll_interval_ms": 2000, "session_timeout_ms": 6000}

    monkeypatch.setattr(subscription, "client_arguments", impatient)
    create(kafka.bootstrap, settings.topic)
    send(kafka.bootstrap, settings.topic, message(1).encode(), message(2).encode())
    tested = subscribe()
    held = take(tested)
    assert nothing_comes(tested, 8.0)
    tested.done(held)
    assert take(tested).message == message(2)
    wait_for("the commit", lambda: committed(settings) == 1)


@pytest.mark.parametrize("value", [b"\xff\x00random", b"", b"{}", b'{"version": 2}', b"[" * 100_000])
def test_a_message_that_is_none_is_logged_counted_and_committed(
    kafka: KafkaCluster, settings: KafkaSettings, subscribe: Subscribe, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    create(kafka.bootstrap, settings.topic)
    send(kafka.bootstrap, settings.topic, value, value, message(1).encode())
    tested = subscribe()
    assert take(tested).message == message(1)
    assert tested.bad_messages == 2
    wait_for("the commit", lambda: committed(settings) == 2)
    assert caplog.text.count("not understood") == 2


def test_a_topic_that_is_made_later_is_found(
    kafka: KafkaCluster, settings: KafkaSettings, subscribe: Subscribe
) -> None:
    tested = subscribe()
    assert nothing_comes(tested, 2.0)
    create(kafka.bootstrap, settings.topic)
    send(kafka.bootstrap, settings.topic, message(1).encode())
    assert take(tested).message == message(1)


def test_two_engines_share_the_partitions_and_one_takes_over_from_the_other(
    kafka: KafkaCluster, settings: KafkaSettings, subscribe: Subscribe
) -> None:
    create(kafka.bootstrap, settings.topic, partitions=2)
    first, second = subscribe(), subscribe()
    wait_for("both to be subscribed", lambda: first.problem() is None and second.problem() is None)

    def reach_both() -> bool:
        """Until a rebalance is through, one of them may hold both partitions."""
        for partition in (0, 1):
            send(kafka.bootstrap, settings.topic, message(1).encode(), partition=partition)
        got = set()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and len(got) < 2:
            for name, one in (("first", first), ("second", second)):
                if (delivery := one.take()) is not None:
                    got.add(name)
                    one.done(delivery)
            time.sleep(0.02)
        return len(got) == 2

    wait_for("messages for both", reach_both, PATIENCE_SECONDS)
    first.close()
    assert first.join(PATIENCE_SECONDS)
    for partition in (0, 1):
        send(kafka.bootstrap, settings.topic, message(10 + partition).encode(), partition=partition)
    seen: set[int] = set()

    def both_seen() -> bool:
        delivery = second.take()
        if delivery is not None:
            seen.add(delivery.message.unit_id)
            second.done(delivery)
        return seen >= {10, 11}

    wait_for("both partitions' messages", both_seen, PATIENCE_SECONDS)


def test_while_the_group_waits_for_a_member_that_was_killed_kafka_is_not_away(
    kafka: KafkaCluster, settings: KafkaSettings, subscribe: Subscribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(subscription, "REBUILD_SECONDS", 2.0)
    create(kafka.bootstrap, settings.topic)
    command = [sys.executable, "-c", MEMBER, kafka.bootstrap, settings.topic]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as member:
        assert member.stdout
        assert member.stdout.readline() == "in\n"
        member.kill()
    tested = subscribe()
    group = f"waiting for Kafka's group {settings.group_id}, broker {kafka.bootstrap} for "
    wait_for("it to join", lambda: (tested.problem() or "").startswith(group))
    deadline = time.monotonic() + 4  # the group waits for 30 s and more
    while time.monotonic() < deadline:
        assert tested.answers is None
        time.sleep(0.1)
    monkeypatch.setattr(subscription, "JOIN_SECONDS", 1.0)
    wait_for("it to give up", lambda: tested.answers is False)


def test_a_message_whose_partition_went_elsewhere_is_not_committed_by_the_former_holder(
    kafka: KafkaCluster, settings: KafkaSettings, subscribe: Subscribe
) -> None:
    create(kafka.bootstrap, settings.topic)
    send(kafka.bootstrap, settings.topic, message(1).encode(), message(2).encode())
    first = subscribe()
    held = take(first)
    second = subscribe()
    wait_for("the second to be subscribed", lambda: second.problem() is None)
    first.close()
    assert first.join(PATIENCE_SECONDS)
    first.done(held)
    assert take(second).message == message(1)
    assert committed(settings) is None


def test_without_a_broker_it_says_so_lets_nobody_wait_and_leaves_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def quick(settings: KafkaSettings, client_id: str) -> dict[str, object]:
        return {**client_arguments(settings, client_id), "bootstrap_timeout_ms": 200}

    monkeypatch.setattr(subscription, "client_arguments", quick)
    monkeypatch.setattr(subscription, "RETRY_SECONDS", 0.05)
    (port,) = free_ports(1)
    before = threading.active_count()
    tested = Subscription(KafkaSettings(bootstrap_servers=(f"127.0.0.1:{port}",)), "test", lambda: None)
    begun = time.monotonic()
    tested.start()
    assert tested.take() is None
    wait_for("it to be known", lambda: tested.answers is False, PATIENCE_SECONDS)
    problem = tested.problem()
    assert problem is not None
    assert problem.startswith(f"waiting for Kafka 127.0.0.1:{port} for ")
    assert nothing_comes(tested, 3.0)  # several clients were built and given up meanwhile
    tested.close()
    assert tested.join(PATIENCE_SECONDS)
    assert time.monotonic() - begun < PATIENCE_SECONDS
    wait_for("the clients' threads to end", lambda: threading.active_count() <= before)


def test_a_broker_that_dies_and_comes_back_is_noticed_and_used_again(server_directory: Path, topic: str) -> None:
    cluster = KafkaCluster(server_directory)
    cluster.start()
    try:
        settings = KafkaSettings(bootstrap_servers=(cluster.bootstrap,), group_id=topic, topic=topic)
        create(cluster.bootstrap, topic)
        send(cluster.bootstrap, topic, message(1).encode())
        tested = Subscription(settings, "test", lambda: None)
        tested.start()
        tested.done(take(tested))
        wait_for("the commit", lambda: committed(settings) == 1)
        wait_for("no problem", lambda: tested.problem() is None)
        cluster.kill(1)
        wait_for("the problem to be told", lambda: tested.problem() is not None, PATIENCE_SECONDS)
        cluster.start_broker(1)
        send(cluster.bootstrap, topic, message(2).encode())
        delivery = take(tested)
        assert delivery.message == message(2)
        tested.done(delivery)
        wait_for("no problem", lambda: tested.problem() is None, PATIENCE_SECONDS)
        tested.close()
        assert tested.join(PATIENCE_SECONDS)
    finally:
        cluster.stop()

"""The one thread that speaks with Kafka: it hands over unit messages and commits, now and then, what was dealt with.

The database holds the truth about units, so a message is only a hint: one that comes twice costs a look at its row.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.net.compat import KafkaNetClient
from kafka.structs import OffsetAndMetadata

from contract import span
from contract.config import KafkaSettings
from contract.errors import MessageError
from contract.kafka_trouble import KafkaTrouble
from contract.message import UnitMessage

POLL_SECONDS = 2.0
FETCH_WAIT_MS = 5000  # a broker without news answers so late; one with news at once
BATCH = 10  # messages of one poll
COMMIT_SECONDS = 3.0  # between two commits: a message that is dealt with and comes again costs a look at its unit
COMMIT_ANSWER_SECONDS = 10.0
LAST_COMMIT_SECONDS = 2.0  # before the group is left, which should happen even when this does not
CLOSE_SECONDS = 5.0
LAG_SECONDS = 10.0  # between two looks at how much waits
LAG_ANSWER_SECONDS = 8.0  # longer than FETCH_WAIT_MS: a broker answers one question after the other
RETRY_SECONDS = 2.0  # after an error of the client, before a new one is built
LOOK_SECONDS = 1.0
LAST_ANSWER = "last-heartbeat-seconds-ago"  # a metric of the client
SILENCE_SECONDS = 12.0  # four heartbeats to the group's coordinator without an answer: Kafka is away
REBUILD_SECONDS = 40.0  # of it: a client may have lost its way to a coordinator that is there; a new one finds it
JOIN_SECONDS = 120.0  # of it while a coordinator has our wish to join: it answers when all members have said so

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivery:
    """One message; the offset is committed some time after it is given to done()."""

    message: UnitMessage
    partition: int
    offset: int


class Subscription:
    """At most one message is out at a time: when it stays out, all partitions are paused, and polled all the same.

    So an engine that is full simply keeps the message; nothing is committed ahead of it, and max_poll_interval never
    passes. wake is called, in this thread, when a message is there.
    """

    def __init__(self, settings: KafkaSettings, client_id: str, wake: Callable[[], None]) -> None:
        self._settings = settings
        self._client_id = client_id
        self._wake = wake
        self._deliveries: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._backlog: deque[Any] = deque()  # records that were polled while another one was out
        self._out: Delivery | None = None
        self._uncommitted: dict[int, int] = {}  # by partition, the last offset that was dealt with
        self._commit_at = float("inf")
        self._closing = threading.Event()
        self._away_since: float | None = time.monotonic()
        self._tried = self._joining = False
        self._trouble = KafkaTrouble()
        self._thread = threading.Thread(target=self._run, name="kafka", daemon=True)
        self._turned_at = self._polled_at = time.monotonic()
        self.bad_messages = 0
        self._lag: tuple[float, int] | None = None  # when it was measured, messages

    def start(self) -> None:
        self._thread.start()

    def take(self) -> Delivery | None:
        """The message that has come, if any. Never blocks."""
        try:
            return self._deliveries.get_nowait()
        except queue.Empty:
            return None

    def done(self, delivery: Delivery) -> None:
        """The claim of this message is done, or it needs none: commit it soon, hand over the next. Never blocks."""
        self._done.put(delivery)

    def problem(self) -> str | None:
        """One sentence while Kafka does not answer, or its group does not let us in; None when all is well."""
        since = self._away_since
        if since is None:
            return None
        awaited = f"Kafka's group {self._settings.group_id}, broker" if self._joining else "Kafka"
        brokers = ",".join(self._settings.bootstrap_servers)
        return self._trouble.after(f"waiting for {awaited} {brokers} for {span.words(time.monotonic() - since)}")

    @property
    def answers(self) -> bool | None:
        """Whether Kafka does. None: not known yet; or a broker did, and the group waits for one that was killed."""
        if self._away_since is None:
            return True
        return False if self._tried and not self._joining else None

    @property
    def lag(self) -> int | None:
        """Messages in our partitions that were not taken yet. None: not known, or not any more."""
        measured = self._lag
        return None if measured is None or time.monotonic() - measured[0] > 3 * LAG_SECONDS else measured[1]

    def silent_seconds(self) -> float:
        """For how long the thread has not come back from a poll or a commit; 0 while Kafka is away."""
        return 0.0 if self._away_since is not None or self._closing.is_set() else time.monotonic() - self._turned_at

    def close(self) -> None:
        """Leave the group, so that others get the partitions at once. Does not wait; a message that is out stays so."""
        self._closing.set()

    def join(self, deadline_seconds: float) -> bool:
        """Wait for the end of the thread; it can be in the constructor of the client for 30 s, and dies with us."""
        self._thread.join(deadline_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self._trouble.listen()
        while not self._closing.is_set():
            self._trouble.forget()
            try:
                consumer = self._build()
            except (KafkaError, OSError, ValueError) as exc:
                self._tried = True
                self._mark_away(self._trouble.after(f"{type(exc).__name__}: {exc}"))
                self._closing.wait(RETRY_SECONDS)
                continue
            self._tried = self._joining = True
            try:
                self._consume(consumer)
            except Exception as exc:  # noqa: BLE001 - whatever befalls the client, a new one may do better
                self._joining = False
                self._mark_away(f"{type(exc).__name__}: {exc}")
                self._closing.wait(RETRY_SECONDS)
            finally:
                self._leave(consumer)

    def _build(self) -> KafkaConsumer:
        """Blocks 30 s without a broker, then raises KafkaError."""
        clients: list[KafkaNetClient] = []

        def client(**arguments: Any) -> KafkaNetClient:
            clients.append(KafkaNetClient(**arguments))
            return clients[-1]

        try:
            consumer = KafkaConsumer(**client_arguments(self._settings, self._client_id), kafka_client=client)
        except BaseException:
            for one in clients:  # a constructor that fails leaves its thread and its descriptors behind
                one.close()
            raise
        consumer.subscribe([self._settings.topic])
        return consumer

    def _consume(self, consumer: KafkaConsumer) -> None:
        built_at = looked_at = lag_at = self._polled_at = time.monotonic()
        while not self._closing.is_set():
            self._turned_at = time.monotonic()
            if self._out is None:
                self._poll(consumer, POLL_SECONDS)
                self._hand_over_next(consumer)
            else:
                self._wait_for_done(consumer)
            if time.monotonic() >= self._commit_at:
                self._commit(consumer, COMMIT_ANSWER_SECONDS)
            if time.monotonic() >= looked_at + LOOK_SECONDS:
                looked_at = time.monotonic()
                self._look_at_coordinator(consumer, built_at)
            # While messages flow it waits a while: the broker may let this thread wait for its answer.
            if time.monotonic() >= lag_at + (0.0 if self._out is None else LAG_SECONDS):
                self._measure_lag(consumer)
                lag_at = time.monotonic() + (LOOK_SECONDS if self.lag is None else LAG_SECONDS)
        self._commit(consumer, LAST_COMMIT_SECONDS)

    def _measure_lag(self, consumer: KafkaConsumer) -> None:
        """What the client knows by itself is old: it fetches nothing while a message is out."""
        partitions = consumer.assignment()
        if self._away_since is not None or not partitions:
            self._lag = None
            return
        patience_ms = int(LAG_ANSWER_SECONDS * 1000)
        try:
            ends = consumer.end_offsets(list(partitions), timeout_ms=patience_ms)
            positions = {each: consumer.position(each, timeout_ms=patience_ms) for each in partitions}
        except KafkaError:
            self._lag = None
            return
        polled = len(self._backlog) + (self._out is not None)
        waiting = sum(max(0, ends[each] - (positions[each] or 0)) for each in partitions if each in ends)
        self._lag = (time.monotonic(), polled + waiting)

    def _wait_for_done(self, consumer: KafkaConsumer) -> None:
        done: Delivery | None = None
        with contextlib.suppress(queue.Empty):
            done = self._done.get(timeout=POLL_SECONDS)
        if time.monotonic() >= self._polled_at + POLL_SECONDS:  # the group waits for who does not poll
            consumer.pause(*consumer.assignment())
            self._poll(consumer, 0.0)
        if done is not None and done == self._out:  # else it is of a former client, and will come again
            self._dealt_with(done.partition, done.offset)
            self._out = None
            self._hand_over_next(consumer)

    def _poll(self, consumer: KafkaConsumer, seconds: float) -> None:
        for of_partition in consumer.poll(timeout_ms=int(seconds * 1000), max_records=BATCH).values():
            self._backlog.extend(of_partition)
        self._polled_at = time.monotonic()

    def _hand_over_next(self, consumer: KafkaConsumer) -> None:
        while self._backlog and self._out is None:
            record = self._backlog.popleft()
            try:
                message = UnitMessage.decode(record.value)
            except MessageError as exc:
                self.bad_messages += 1
                facts = {"partition": record.partition, "offset": record.offset, "count": self.bad_messages}
                log.error("a message is not understood and skipped", extra={**facts, "error": str(exc)})
                self._dealt_with(record.partition, record.offset)
                continue
            self._out = Delivery(message, record.partition, record.offset)
            self._deliveries.put(self._out)
            self._wake()
        if self._out is None and (paused := consumer.paused()):
            consumer.resume(*paused)

    def _dealt_with(self, partition: int, offset: int) -> None:
        self._uncommitted[partition] = offset
        self._commit_at = min(self._commit_at, time.monotonic() + COMMIT_SECONDS)

    def _commit(self, consumer: KafkaConsumer, answer_seconds: float) -> None:
        """Of partitions that another one has now it gets the messages again, and finds their units claimed."""
        ours = {where.partition: where for where in consumer.assignment()}
        offsets = {
            ours[partition]: OffsetAndMetadata(offset + 1, "", -1)
            for partition, offset in self._uncommitted.items()
            if partition in ours
        }
        try:
            if offsets:
                consumer.commit(offsets, timeout_ms=int(answer_seconds * 1000))
        except KafkaError as exc:
            self._commit_at = time.monotonic() + COMMIT_SECONDS
            log.warning(
                "offsets were not committed, their messages may come again",
                extra={"partitions": len(offsets), "error": f"{type(exc).__name__}: {exc}"},
            )
        else:
            self._uncommitted, self._commit_at = {}, float("inf")

    def _look_at_coordinator(self, consumer: KafkaConsumer, built_at: float) -> None:
        """A client whose brokers are gone polls on in peace: that they live shows in the answers to its heartbeats."""
        # Of a hundred metrics one is measured: all of them took a third of this thread's time.
        metrics = consumer.metrics(raw=True).items()
        answered_before = next(float(value.value()) for metric, value in metrics if metric.name == LAST_ANSWER)
        silence = min(answered_before, time.monotonic() - built_at)
        if silence > (JOIN_SECONDS if _waits_for_others(consumer) else REBUILD_SECONDS):
            raise KafkaTimeoutError(f"no answer to a heartbeat for {silence:.0f} s")
        if silence > SILENCE_SECONDS:
            self._mark_away(f"no answer to a heartbeat for {silence:.0f} s", time.monotonic() - silence)
        elif self._away_since is not None and (answered_before < SILENCE_SECONDS or consumer.assignment()):
            log.info("subscribed", extra={"topic": self._settings.topic, "partitions": len(consumer.assignment())})
            self._away_since, self._joining = None, False

    def _mark_away(self, error: str, since: float | None = None) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic() if since is None else since
            log.warning("Kafka does not answer, trying again", extra={"error": error})

    def _leave(self, consumer: KafkaConsumer) -> None:
        """What was polled comes again from the last committed offsets."""
        self._backlog.clear()
        self._out = None
        self._uncommitted, self._commit_at = {}, float("inf")
        try:
            consumer.close(autocommit=False, timeout_ms=int(CLOSE_SECONDS * 1000))
        except KafkaError as exc:
            log.info("the group was not left in time", extra={"error": f"{type(exc).__name__}: {exc}"})


def _waits_for_others(consumer: KafkaConsumer) -> bool:
    """Whether a coordinator that is there has our wish to join; such a client sends no heartbeats.

    One that gave up would stay in the group, which waits for it, and its successor is a new member, for whom the group
    begins anew: of many engines that start at once none would ever have a partition.
    """
    coordinator = consumer._coordinator
    return bool(coordinator.rejoining) and not coordinator.coordinator_unknown()


def client_arguments(settings: KafkaSettings, client_id: str) -> dict[str, Any]:
    """The keyword arguments of KafkaConsumer."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": client_id,
        "group_id": settings.group_id,
        "auto_offset_reset": "earliest",  # a new group that started at the latest would lose units
        "enable_auto_commit": False,
        "allow_auto_create_topics": False,
        "metadata_max_age_ms": 30_000,  # notices a grown topic
        "fetch_max_wait_ms": FETCH_WAIT_MS,
        "reconnect_backoff_max_ms": 2_000,
        "security_protocol": settings.security_protocol,
        "sasl_mechanism": settings.sasl_mechanism or None,
        "sasl_plain_username": settings.sasl_username or None,
        "sasl_plain_password": settings.sasl_password or None,
    }
    if settings.ssl_cafile is not None:
        arguments["ssl_cafile"] = str(settings.ssl_cafile)
    return arguments

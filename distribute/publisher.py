"""Unit messages to Kafka, by a thread of its own: building a client blocks for 30 s while no broker answers.

A message is a hint and may be sent twice; what matters is that each one given ends with an outcome.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError
from kafka.net.compat import KafkaNetClient

from contract import span
from contract.config import KafkaSettings
from contract.failpoint import fail_point
from contract.kafka_trouble import KafkaTrouble
from contract.message import UnitMessage

CLIENT_ID = "distribute-dispatcher"
RETRY_SECONDS = 2.0  # after an error of a client, before new ones are built
DELIVERY_SECONDS = 20.0  # from the send to its failure; the client tries again on its own until then
METADATA_SECONDS = 5.0
CLOSING_SECONDS = 0.1  # how soon a stop is noticed
BATCH = 500
UNKNOWN_TOPIC = 3  # Kafka's error code

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How one message went: is_sent when every in-sync replica has it."""

    unit_id: int
    is_sent: bool


class Publisher:
    """No call blocks but join(). The topic is created when it is missing, and grown when it has too few partitions."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._given: queue.SimpleQueue[UnitMessage] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._away_since: float | None = time.monotonic()
        self._trouble = KafkaTrouble()
        self._thread = threading.Thread(target=self._run, name="kafka", daemon=True)
        self.partitions = 0  # of the topic; 0 until it was seen

    def start(self) -> None:
        self._thread.start()

    def send(self, messages: Iterable[UnitMessage]) -> None:
        """Each of them will have exactly one outcome, unless this process ends before."""
        for message in messages:
            self._given.put(message)

    def outcomes(self) -> Iterator[Outcome]:
        """Those that have come since the last call."""
        while not self._outcomes.empty():
            yield self._outcomes.get()

    def problem(self) -> str:
        """One sentence while Kafka cannot be used, else empty: then it is better to send nothing."""
        since = self._away_since
        if since is None:
            return ""
        brokers = ",".join(self._settings.bootstrap_servers)
        return self._trouble.after(f"waiting for Kafka {brokers} for {span.words(time.monotonic() - since)}")

    def close(self) -> None:
        """End the thread; what was not sent yet is not sent."""
        self._closing.set()

    def join(self, deadline_seconds: float) -> None:
        """Wait for the end of the thread; while it builds a client it does not end, and dies with us."""
        self._thread.join(deadline_seconds)

    def _run(self) -> None:
        self._trouble.listen()
        while not self._closing.is_set():
            self._trouble.forget()
            try:
                self._prepare_topic()
                producer = self._build_producer()
            except Exception as exc:  # noqa: BLE001 - whatever befalls a client, a new one may do better
                self._mark_away(exc)
                self._fail_given()
                self._closing.wait(RETRY_SECONDS)
                continue
            self._mark_back()
            try:
                self._serve(producer)
            except Exception as exc:  # noqa: BLE001 - as above
                self._mark_away(exc)
            finally:
                with contextlib.suppress(KafkaError):
                    producer.close(timeout=0 if self._closing.is_set() else 1)

    def _serve(self, producer: KafkaProducer) -> None:
        """Send what is given until a send fails."""
        turns = itertools.cycle(sorted(producer.partitions_for(self._settings.topic)))
        while not self._closing.is_set():
            batch = self._next_batch()
            error: Exception | None = None
            futures = []
            for message in batch:
                try:
                    futures.append(self._append(producer, message, next(turns)))
                except Exception as exc:  # noqa: BLE001 - every message has its outcome
                    error = exc
                    self._outcomes.put(Outcome(message.unit_id, False))
            for message, future in futures:
                error = self._await(message, future) or error
            if error is not None:
                raise error

    def _append(self, producer: KafkaProducer, message: UnitMessage, partition: int) -> tuple[UnitMessage, Any]:
        return message, producer.send(self._settings.topic, message.encode(), partition=partition)

    def _await(self, message: UnitMessage, future: Any) -> Exception | None:
        """Put the outcome; returns why the send failed. The client ends every send within DELIVERY_SECONDS."""
        deadline = time.monotonic() + 2 * DELIVERY_SECONDS
        while not future.is_done and time.monotonic() < deadline and not self._closing.is_set():
            with contextlib.suppress(Exception):  # a failed send shows in the future itself
                future.get(timeout=CLOSING_SECONDS)
        is_sent = future.is_done and future.succeeded()
        if is_sent:
            fail_point("sent")
        self._outcomes.put(Outcome(message.unit_id, is_sent))
        if is_sent or self._closing.is_set():
            return None
        return future.exception or TimeoutError("a send did not end")

    def _next_batch(self) -> list[UnitMessage]:
        try:
            batch = [self._given.get(timeout=CLOSING_SECONDS)]
        except queue.Empty:
            return []
        while len(batch) < BATCH and not self._given.empty():
            batch.append(self._given.get())
        return batch

    def _fail_given(self) -> None:
        while not self._given.empty():
            self._outcomes.put(Outcome(self._given.get().unit_id, False))

    def _prepare_topic(self) -> None:
        """Blocks for 30 s without a broker. Raises KafkaError."""
        topic, wanted = self._settings.topic, self._settings.partitions
        with _clients() as kafka_client, contextlib.ExitStack() as ending:
            admin = KafkaAdminClient(**client_arguments(self._settings), kafka_client=kafka_client)
            ending.callback(admin.close)
            found = admin.describe_topics([topic])[0]
            if found["error_code"] == UNKNOWN_TOPIC:
                replication = self._settings.replication or -1  # -1: the broker's default
                new = {topic: {"num_partitions": wanted, "replication_factor": replication}}
                with contextlib.suppress(TopicAlreadyExistsError):  # by another dispatcher
                    admin.create_topics(new)
                    log.info("topic created", extra={"topic": topic, "partitions": wanted})
            elif len(found["partitions"]) < wanted:
                admin.create_partitions({topic: wanted})
                log.info("topic grown", extra={"topic": topic, "partitions": wanted})
            admin.wait_for_topics([topic])
            self.partitions = len(admin.describe_topics([topic])[0]["partitions"])

    def _build_producer(self) -> KafkaProducer:
        """Blocks for 30 s without a broker. Raises KafkaError."""
        with _clients() as kafka_client:
            return KafkaProducer(
                **client_arguments(self._settings),
                kafka_client=kafka_client,
                acks="all",
                enable_idempotence=False,  # a unit that is told twice does no harm, and needs no right of its own
                allow_auto_create_topics=False,
                delivery_timeout_ms=int(DELIVERY_SECONDS * 1000),
                max_block_ms=int(METADATA_SECONDS * 1000),
                metadata_max_age_ms=10_000,
            )

    def _mark_away(self, error: Exception) -> None:
        if self._away_since is None or not self.partitions:
            self._away_since = self._away_since or time.monotonic()
            words = self._trouble.after(f"{type(error).__name__}: {error}")
            log.warning("Kafka cannot be used, trying again", extra={"error": words})

    def _mark_back(self) -> None:
        log.info("connected with Kafka", extra={"topic": self._settings.topic, "partitions": self.partitions})
        self._away_since = None


def client_arguments(settings: KafkaSettings) -> dict[str, Any]:
    """The keyword arguments that every client of kafka-python knows."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": CLIENT_ID,
        "request_timeout_ms": int(DELIVERY_SECONDS * 500),
        "reconnect_backoff_max_ms": 2_000,
        "security_protocol": settings.security_protocol,
        "sasl_mechanism": settings.sasl_mechanism or None,
        "sasl_plain_username": settings.sasl_username or None,
        "sasl_plain_password": settings.sasl_password or None,
    }
    if settings.ssl_cafile is not None:
        arguments["ssl_cafile"] = str(settings.ssl_cafile)
    return arguments


@contextlib.contextmanager
def _clients() -> Iterator[Any]:
    """A factory of network clients: a constructor that fails leaves its client's thread and descriptors behind."""
    made: list[KafkaNetClient] = []

    def make(**arguments: Any) -> KafkaNetClient:
        made.append(KafkaNetClient(**arguments))
        return made[-1]

    try:
        yield make
    except BaseException:
        for client in made:
            client.close()
        raise

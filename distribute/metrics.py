"""/metrics, for Prometheus: the requests of all worker processes, and what the database says when it is asked."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from apiflask import APIBlueprint, APIFlask
from flask import Response, current_app, request
from prometheus_client import CollectorRegistry, Counter, generate_latest, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from contract.database import Database, now
from contract.errors import DatabaseError
from contract.states import EngineState
from distribute import access, context
from distribute.store import figures
from distribute.store.figures import Figures
from distribute.tokens import Role

CACHE_SECONDS = 1.0  # however often a worker is asked, so often it asks the database
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}  # a client may send any word
_NAME = "distribute.metrics"

metrics = APIBlueprint("metrics", __name__, tag="health")


@metrics.get("/metrics")
@metrics.doc(hide=True)  # not JSON
@access.needs(Role.READ)
def show() -> Response:
    """The figures of this service"""
    context.current().let_in()
    return Response(cast(Metrics, current_app.extensions[_NAME]).text(), content_type=CONTENT_TYPE_LATEST)


def share(folder: str) -> None:
    """From now on count in files of this folder, one a process; called before the workers are forked."""
    os.environ[_FOLDER] = folder
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]  # chosen when the library was imported, without a folder


def server_errors(folder: Path) -> int | None:
    """How many requests were answered with 5xx since the folder was made, but for /readyz: that is how it says no.

    None: it cannot be read now.
    """
    try:
        families = list(MultiProcessCollector(None, str(folder)).collect())  # type: ignore[no-untyped-call]
    except (OSError, ValueError, struct.error):  # a file that a worker is making
        return None
    samples = [sample for family in families for sample in family.samples if sample.name == "distribute_requests_total"]
    errors = [
        one.value for one in samples if one.labels["code"].startswith("5") and one.labels["endpoint"] != "/readyz"
    ]
    return int(sum(errors))


def bind(app: APIFlask, database: Database) -> None:
    """Count the requests of this application."""
    app.extensions[_NAME] = measured = Metrics(database)
    app.after_request(measured.count)


class Metrics:
    """One for each process that answers requests; used by all its threads."""

    def __init__(self, database: Database) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "distribute_requests", "Requests that were answered", ["endpoint", "method", "code"],
            registry=None if _FOLDER in os.environ else self._registry,
        )  # fmt: skip
        if _FOLDER in os.environ:
            MultiProcessCollector(self._registry)  # type: ignore[no-untyped-call]
        self._registry.register(_FromDatabase(database))

    def count(self, response: Response) -> Response:
        """The labels are bounded: what a client makes up is never one."""
        endpoint = "none" if request.url_rule is None else request.url_rule.rule
        method = request.method if request.method in _METHODS else "other"
        self._requests.labels(endpoint, method, str(response.status_code)).inc()
        return response

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _FromDatabase(Collector):
    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._figures: Figures | None = None

    def describe(self) -> list[Metric]:
        return []  # else the registry would collect, and so wait for the database, at the start

    def collect(self) -> Iterator[Metric]:
        found = self._ask()
        up = "Whether the database has answered; when not, all figures but this and the requests are missing"
        yield GaugeMetricFamily("distribute_database_up", up, value=found is not None)
        if found is not None:
            yield from _families(found)

    def _ask(self) -> Figures | None:
        """None: the database does not answer."""
        with self._lock:
            if time.monotonic() - self._asked_at >= CACHE_SECONDS:
                try:
                    self._figures = self._database.read(lambda connection: figures.figures(connection, now()))
                except DatabaseError:
                    self._figures = None
                self._asked_at = time.monotonic()
            return self._figures


def _families(found: Figures) -> Iterator[Metric]:
    yield _by("tasks", "Tasks that have not ended", "state", found.tasks)
    yield _by("units", "Units of tasks that have not ended", "state", found.units)
    yield _by("hosts", "Hosts of tasks that have not ended", "status", found.hosts)
    yield _by("oldest_unit_age_seconds", "Of the oldest unit in this state, 0 without one", "state", found.ages)
    yield GaugeMetricFamily("distribute_dispatcher_leads", "Whether a dispatcher leads", value=found.has_leader)
    yield CounterMetricFamily("distribute_dispatcher_beats", "Stands still when the leader is gone", value=found.beat)
    slots = GaugeMetricFamily("distribute_engine_slots", "Hosts that it runs at once", labels=["engine"])
    free = GaugeMetricFamily("distribute_engine_free_slots", "Room for so many more hosts", labels=["engine"])
    states = GaugeMetricFamily("distribute_engine_state", "1 for its present state", labels=["engine", "state"])
    for engine in found.engines:
        slots.add_metric([engine.id], engine.slots)
        free.add_metric([engine.id], engine.free_slots)
        for state in EngineState:
            states.add_metric([engine.id, state], state == engine.state)
    yield from (slots, free, states)


def _by(name: str, text: str, label: str, numbers: dict[str, int] | dict[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"distribute_{name}", text, labels=[label])
    for value, number in numbers.items():
        family.add_metric([value], number)
    return family

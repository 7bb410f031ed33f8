"""distribute: web. gunicorn with the application: an arbiter, which the supervisor watches, and its workers."""

from __future__ import annotations

import errno
import gc
import logging
import mmap
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apiflask import APIFlask
from gunicorn import glogging
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker
from gunicorn.workers.gthread import ThreadWorker
from werkzeug.wsgi import ClosingIterator

from contract import config as configuration
from contract import migrations, processes, reload
from contract.config import Config, DistributeSettings
from contract.database import Database
from contract.errors import DatabaseError
from contract.supervised import Lifeline
from distribute import context, exposure, metrics, run_folder
from distribute.app import create_app
from distribute.cloning import MOST_CLONES
from distribute.project_tree import Tree
from distribute.sweep import Sweep

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

TITLE = "distribute: web"
STOP_SECONDS = 20  # for requests that are being answered
THREADS = 8  # a worker
BIND_SECONDS = 10
KEEP_ALIVE_SECONDS = 75  # longer than nginx keeps an idle connection, so that it is never the one who is surprised
HUNG_WORKER_SECONDS = 60
TAKE_SECONDS = 30.0  # in which a client has to take a piece of its answer: else it holds a thread for ever
PIECE_BYTES = 64 << 10
UPGRADE_PAUSE_SECONDS = 2.0
BACKLOG = 2048

log = logging.getLogger(__name__)


def run(config: Config, lifeline: Lifeline) -> int:
    """Answer REST until SIGTERM; returns the exit code. Says ready when it listens, whatever the database does.

    Raises ConfigError where it must not listen.
    """
    exposure.check_address(config.distribute)  # once more: this may be started by hand, or again after a change
    listener = _listen(config.distribute, lifeline)
    folder = run_folder.take()
    metrics.share(str(folder))
    try:
        _Server(config, lifeline, listener, folder).run()
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 1
    return 0


def _listen(settings: DistributeSettings, lifeline: Lifeline) -> socket.socket:
    """Bound and listening; tries for BIND_SECONDS, because a former web process may still hold the port."""
    address = (settings.host, settings.port)
    family, _, _, _, resolved = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    deadline = time.monotonic() + BIND_SECONDS
    while True:
        lifeline.alive()
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(resolved)
            listener.listen(BACKLOG)
            return listener
        except OSError as exc:
            listener.close()
            if exc.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's view of what it is to run."""

    def __init__(self, config: Config, lifeline: Lifeline, listener: socket.socket, metrics_folder: Path) -> None:
        self.config = config
        self.reloads = mmap.mmap(-1, 1)  # shared with the workers: how often the configuration was read again
        self._metrics_folder = metrics_folder
        self._listener = listener
        self.lifeline = lifeline
        self.database = Database(config.database, pool_size=THREADS + MOST_CLONES + 1)  # the one for the sweep
        self.flask: APIFlask | None = None
        super().__init__()

    def load_config(self) -> None:
        settings = {
            "bind": f"fd://{self._listener.detach()}",
            "backlog": BACKLOG,
            "worker_class": _Worker,
            "workers": self.config.distribute.workers,
            "threads": THREADS,
            "preload_app": True,
            "timeout": HUNG_WORKER_SECONDS,
            "graceful_timeout": STOP_SECONDS,
            "keepalive": KEEP_ALIVE_SECONDS,
            "limit_request_line": 0,  # thousands of addresses in ?ips=
            "control_socket_disable": True,
            "logger_class": _Logger,
            "when_ready": lambda _arbiter: self._tell_ready(),
            "post_fork": _become_worker,
            "post_worker_init": lambda _worker: self._begin(),
            # The arbiter's end alone: a worker leaves through the same frames and must not take the folder away.
            "on_exit": lambda _arbiter: run_folder.leave(self._metrics_folder),
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """In the arbiter, so that the workers share it; there nothing of it connects or starts a thread."""
        self.flask = app = create_app(self.config, self.database)
        app.wsgi_app = _with_deadlines(app.wsgi_app)
        return app

    def _begin(self) -> None:
        """In each worker."""
        threading.Thread(target=_upgrade, args=(self.database,), name="upgrade", daemon=True).start()
        Sweep(Tree(self.config.distribute.files_dir), self.database).start()

    def run(self) -> None:
        _Arbiter(self).run()

    def follow(self) -> None:
        """In the arbiter, for workers that are yet to come, and in each worker.

        gunicorn's own reload, at SIGHUP to this process, would end the workers, and the clones in their background.
        """
        self.config = reload.follow(self.config, configuration.DISTRIBUTE)
        if self.flask is not None:
            with self.flask.app_context():
                context.current().change(self.config)

    def _tell_ready(self) -> None:
        gc.collect()
        gc.freeze()  # no collection of a worker's may touch, and so copy, what it shares with the arbiter
        self.lifeline.ready()
        self.lifeline.status(f"answers on {self.config.distribute.host}, port {self.config.distribute.port}")


class _Arbiter(Arbiter):  # type: ignore[misc]
    def manage_workers(self) -> None:
        """The first thing that the main loop does, just after gunicorn has given this process its own title."""
        processes.set_title(TITLE)
        super().manage_workers()

    def wait_for_signals(self, timeout: float = 1.0) -> Any:
        """What the main loop does at each turn, at least once a second."""
        self.app.lifeline.alive()
        if self.app.lifeline.must_reload():
            self.app.follow()
            self.app.reloads[0] = (self.app.reloads[0] + 1) % 256
        return super().wait_for_signals(timeout)


class _Worker(ThreadWorker):  # type: ignore[misc]
    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._reloads = self.app.reloads[0]  # still in the arbiter

    def notify(self) -> None:
        """What the main loop does at each turn, at least once a second."""
        super().notify()
        if self._reloads != (found := self.app.reloads[0]):
            self._reloads = found
            self.app.follow()

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Ends the connection of a client that does not take its answer, and throws away what it has not taken."""
        try:
            return super().handle_request(req, conn)
        except TimeoutError:
            log.warning("a client does not take its answer", extra={"address": conn.client[0], "path": req.path})
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            conn.sock.shutdown(socket.SHUT_RDWR)  # or gunicorn's main thread would wait for the client's own end of it
            return False


def _with_deadlines(application: WSGIApplication) -> WSGIApplication:
    """A piece of an answer that is not taken within TAKE_SECONDS raises TimeoutError where it is sent."""

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        parts = application(environ, start_response)  # the request has been read: from here on all is sending
        environ["gunicorn.socket"].settimeout(TAKE_SECONDS)  # of sendall as a whole; gone with the next request
        return ClosingIterator(_pieces(parts), getattr(parts, "close", None))

    return call


def _pieces(parts: Iterable[bytes]) -> Iterator[bytes]:
    for part in parts:
        for start in range(0, len(part), PIECE_BYTES):
            yield part[start : start + PIECE_BYTES]


class _Logger(glogging.Logger):  # type: ignore[misc]
    """gunicorn's messages go where all others go."""

    def _set_handler(self, target: logging.Logger, *_: Any, **__: Any) -> None:
        target.propagate = True


def _become_worker(arbiter: Arbiter, _worker: Worker) -> None:
    processes.die_with_parent(arbiter.pid)
    processes.set_title(f"{TITLE} worker")


def _upgrade(database: Database) -> None:
    """Bring the schema up to date as soon as the database lets us; requests are answered with 503 until then."""
    told = ""
    while True:
        try:
            migrations.upgrade(database)
            return
        except DatabaseError as exc:
            if str(exc) != told:
                told = str(exc)
                log.warning("the database schema cannot be brought up to date yet", extra={"error": told})
        time.sleep(UPGRADE_PAUSE_SECONDS)

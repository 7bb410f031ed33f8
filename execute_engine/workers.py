"""Ansible's workers as threads of one process: the module that reaches deepest into ansible-core's insides.

A strategy starts a WorkerProcess for each host and task. Here Thread takes its place: it runs the same TaskExecutor,
on a copy of the task, and puts the same result into the same queue. What a fork gave for nothing is done by hand:

- the task is copied with its parents (post_validate writes into both), the variables and the loader's list of
  temporary files as well; results are pickled, so that nobody changes another's data;
- plugin loading is not thread-safe (a module stands in sys.modules before its code has run), and neither is the
  variable manager while facts are stored: one lock for each;
- the timeout keyword cannot use SIGALRM, which only the main thread may; sleeping tasks are woken by an event;
- the strategies wait for an event where they looked again after a millisecond.

check() compares what is replaced here with the ansible-core at hand; install() needs an empty answer from it.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import inspect
import pickle
import queue
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from ansible import constants
from ansible._internal import _task
from ansible._internal._datatag._tags import Origin
from ansible._internal._errors import _alarm_timeout, _error_utils
from ansible.errors import AnsibleError
from ansible.executor import play_iterator, task_executor, task_queue_manager, task_result
from ansible.executor.process import worker as process_worker
from ansible.plugins import loader, strategy
from ansible.plugins.action import pause, reboot, wait_for_connection
from ansible.plugins.strategy import free, linear
from ansible.release import __version__
from ansible.utils.display import Display
from ansible.vars import manager

VERSION = "2.19."
STACK_BYTES = 1 << 20
SAFETY_SECONDS = 5.0  # the strategies look again after this even when nobody woke them; no run depends on it

_came = threading.Event()  # a result came or a worker became free: the strategy has something to do
_mine = threading.local()  # .worker: the Thread that runs in this thread

_EXPECTED: tuple[tuple[Any, str, str], ...] = (  # owner, function, its parameters ("" = whatever)
    (
        process_worker.WorkerProcess,
        "__init__",
        "self final_q task_vars host task play_context loader variable_manager shared_loader_obj worker_id cliargs",
    ),
    (
        task_executor.TaskExecutor,
        "__init__",
        "self host task job_vars play_context loader shared_loader_obj final_q variable_manager",
    ),
    (task_executor.TaskExecutor, "run", "self"),
    (task_result._RawTaskResult, "__init__", "self host task return_data task_fields"),
    (task_queue_manager.FinalQueue, "send_callback", "self method_name task_result"),
    (task_queue_manager.FinalQueue, "send_task_result", "self task_result"),
    (task_queue_manager.FinalQueue, "send_display", "self method args kwargs"),
    (task_queue_manager.FinalQueue, "send_prompt", "self kwargs"),
    (play_iterator.PlayIterator, "get_next_task_for_host", "self host peek"),
    (play_iterator.PlayIterator, "_check_failed_state", "self state"),
    (_alarm_timeout.AnsibleTimeoutError, "alarm_timeout", "timeout"),
    (strategy.StrategyBase, "__init__", "self tqm"),
    (strategy.StrategyBase, "_process_pending_results", ""),
    (loader.PluginLoader, "get", "self name args kwargs"),
    (loader.PluginLoader, "get_with_context", "self name args kwargs"),
    (loader.PluginLoader, "find_plugin", ""),
    (loader.PluginLoader, "find_plugin_with_context", ""),
    (loader.PluginLoader, "has_plugin", ""),
    (loader.PluginLoader, "all", "self args kwargs"),
    (loader.Jinja2Loader, "get_with_context", "self name args kwargs"),
    (loader.Jinja2Loader, "all", "self args kwargs"),
    (manager.VariableManager, "get_vars", ""),
    (manager.VariableManager, "set_host_facts", "self host facts"),
    (manager.VariableManager, "set_nonpersistent_facts", "self host facts"),
    (manager.VariableManager, "set_host_variable", "self host varname value"),
    (manager.VariableManager, "clear_facts", "self hostname"),
)
_SLEEPERS = (task_executor, pause, wait_for_connection, reboot)
_LOOKERS = (strategy, free)


def check() -> list[str]:
    """What about this ansible-core is not as this module needs it; empty when threads can be used."""
    found = [] if __version__.startswith(VERSION) else [f"ansible-core is {__version__}, expected {VERSION}x"]
    for owner, name, parameters in _EXPECTED:
        function = getattr(owner, name, None)
        if function is None:
            found.append(f"{owner.__name__}.{name} does not exist")
        elif parameters and (takes := " ".join(inspect.signature(function).parameters)) != parameters:
            found.append(f"{owner.__name__}.{name} takes ({takes}), expected ({parameters})")
    for module in (*_SLEEPERS, *_LOOKERS):
        if getattr(module, "time", None) is not time:
            found.append(f"{module.__name__} does not use the module time")
    if getattr(strategy, "WorkerProcess", None) is not process_worker.WorkerProcess:
        found.append("the strategies do not start WorkerProcess")
    if hasattr(linear, "time"):
        found.append("the linear strategy sleeps itself")
    return found


def install(interrupt: Callable[[Thread, BaseException], None]) -> None:
    """Use threads from now on in this process, for good. Call it before a TaskQueueManager is made.

    interrupt(worker, exception) must raise the exception in a connection call that this worker waits for; nothing
    when it waits for none.
    """
    threading.stack_size(STACK_BYTES)
    Thread.interrupt_connection = staticmethod(interrupt)
    strategy.WorkerProcess = Thread
    task_queue_manager.FinalQueue = _Queue
    strategy.StrategyBase.__init__ = _told_of_results(strategy.StrategyBase.__init__)
    strategy.StrategyBase._process_pending_results = _look_again(strategy.StrategyBase._process_pending_results)
    _lock(loader.PluginLoader, ("get", "get_with_context", "all", "find_plugin", "find_plugin_with_context"))
    _lock(loader.PluginLoader, ("has_plugin",))
    _lock(loader.Jinja2Loader, ("get_with_context", "all"))
    _lock(
        manager.VariableManager,
        ("get_vars", "set_host_facts", "set_nonpersistent_facts", "set_host_variable", "clear_facts"),
    )
    _alarm_timeout.AnsibleTimeoutError.alarm_timeout = classmethod(_alarm)
    for module in _SLEEPERS:
        module.time = _time_with(_sleep)
    for module in _LOOKERS:
        module.time = _time_with(_wait_for_results)


def watch(nothing_left: Callable[[str, bool], None]) -> None:
    """Call nothing_left(host, failed) whenever a strategy finds that its play has no task for the host any more.

    Works with processes too. failed: the play has given the host up. It is called often, also while the host's last
    task is still running, and with its strategy's thread.
    """

    class Watched(play_iterator.PlayIterator):  # type: ignore[misc]
        def get_next_task_for_host(self, host: Any, peek: bool = False) -> tuple[Any, Any]:
            state, found = super().get_next_task_for_host(host, peek=peek)
            if found is None and peek:
                nothing_left(host.name, self._check_failed_state(state))
            return state, found

    task_queue_manager.PlayIterator = Watched


def show(display: Callable[[str, str], None]) -> None:
    """Give what Ansible wants to show a person (level, text) to display instead of writing it to stdout."""
    levels = {constants.COLOR_ERROR: "error", constants.COLOR_WARN: "warning", constants.COLOR_DEPRECATE: "info"}

    def one(msg: str, color: str | None = None, *args: Any, **kwargs: Any) -> None:
        display(levels.get(color or "", "info"), msg)

    Display().display = one


def says(error: BaseException) -> str:
    """An error as Ansible prints it: the message, and the file, line and column it is about."""
    shown: list[str] = []
    display = Display()
    before = display.display
    display.display = lambda msg, *args, **kwargs: shown.append(msg)
    try:
        display.error(error)
    finally:
        display.display = before
    text = "\n".join(shown).removeprefix("[ERROR]: ").replace("\n\n(source not shown: FileNotFoundError)", "")
    return text.strip() or str(error)  # the playbook lies in memory: place and column say enough


def says_without_text(error: BaseException) -> str:
    """The same of a task whose text is secret, which Ansible's words repeat: the kind of error and its line alone."""
    about = getattr(error, "obj", None)
    origin = about if isinstance(about, Origin) else Origin.get_tag(about)
    place = f" in line {origin.line_num}" if origin and origin.line_num else ""
    return (
        f"Ansible cannot run it as it is written: {type(error).__name__}{place}. What it says is not shown, because it "
        "repeats text that is secret. Look at quotes and templates; or submit it without its secrets and without "
        "secret_args to a host for tests, and read there what is wrong"
    )


class Thread:
    """A WorkerProcess as its strategy knows it, run by a thread that is used again."""

    pid = exitcode = worker_queue = None
    interrupt_connection: Callable[[Thread, BaseException], None]
    _pool: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    _idle = threading.Semaphore(0)

    def __init__(
        self,
        *,
        final_q: Any,
        task_vars: dict[str, Any],
        host: Any,
        task: Any,
        play_context: Any,
        loader: Any,
        variable_manager: Any,
        shared_loader_obj: Any,
        worker_id: int,
        cliargs: Any,
    ) -> None:
        self.worker_id = worker_id
        self.host = host
        self.ident = 0
        self.woken = threading.Event()
        self._alive = True
        self._queue = final_q
        self._task = task.copy(exclude_tasks=True)
        own_files = copy.copy(loader)
        own_files._tempfiles = set()
        self._arguments: tuple[Any, ...] = (
            host,
            self._task,
            task_vars.copy(),
            play_context,
            own_files,
            shared_loader_obj,
            final_q,
            variable_manager,
        )
        self.executor: Any = None

    def start(self) -> None:
        if not self._idle.acquire(blocking=False):
            threading.Thread(target=_work, args=(self._pool, self._idle), daemon=True, name="worker").start()
        self._pool.put(self._run)

    def _run(self) -> None:
        _mine.worker = self
        self.ident = threading.get_ident()
        try:
            with _task.TaskContext(self._task):
                self.executor = task_executor.TaskExecutor(*self._arguments)
                result, fields = self.executor.run(), self._task.dump_attrs()
            self._send(result, fields)
        except BaseException as error:  # noqa: BLE001 - whatever it is, this host must have a result
            self._send(_as_result(error), {})
        finally:
            _mine.worker = None
            self._alive = False
            self._arguments = ()
            self.executor = None
            _came.set()

    def _send(self, result: Any, fields: Any) -> None:
        try:
            self._queue.send_task_result(task_result._RawTaskResult(self.host, self._task, result, fields))
        except Exception as error:  # noqa: BLE001 - a result that cannot be copied; as WorkerProcess does
            self._queue.send_task_result(
                task_result._RawTaskResult(self.host, self._task, _as_result(error, "Task result omitted"), {})
            )

    @property
    def connection_host(self) -> str:
        """The host that this worker's connection leads to: its own, or the one it delegates to."""
        connection = getattr(self.executor, "_connection", None)
        return str(getattr(connection, "fenced_host", None) or self.host.name)

    def is_alive(self) -> bool:
        return self._alive

    def terminate(self) -> None:
        """A thread cannot be ended; its runner's end does it."""

    def close(self) -> None:
        """Nothing to free: the thread goes on with another task."""

    def join(self, timeout: float | None = None) -> None:
        """Ansible only joins what it terminated."""


def _work(pool: queue.SimpleQueue[Callable[[], None]], idle: threading.Semaphore) -> None:
    while True:
        pool.get()()
        idle.release()


def _as_result(error: BaseException, what: str = "Unexpected failure in a worker") -> dict[str, Any]:
    try:
        raise AnsibleError(f"{what}.") from error
    except AnsibleError as wrapped:
        return {**_error_utils.result_dict_from_exception(wrapped), "changed": False}


class _Queue(task_queue_manager.FinalQueue):  # type: ignore[misc]
    """The strategy's queue without a pipe; what is put in is copied, as it was on its way from a process."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def put(self, item: object) -> None:
        self._items.put(pickle.dumps(item, pickle.HIGHEST_PROTOCOL))

    def get(self) -> object:
        return pickle.loads(self._items.get())  # noqa: S301  # put in by this very process

    def close(self) -> None:
        """Nothing is open."""


class _Results(deque):  # type: ignore[type-arg]
    def append(self, item: Any) -> None:
        super().append(item)
        _came.set()


def _told_of_results(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self._results = _Results(self._results)

    return wrapper


def _look_again(process: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """`free` looks for work, takes results in, and waits in any case: a look too late where something came, and for
    nothing where nothing runs any more, as at the end of each play.
    """

    @functools.wraps(process)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> list[Any]:
        results = process(self, *args, **kwargs)
        if results or not self._pending_results:
            _came.set()
        return results

    return wrapper


def _wait_for_results(seconds: float) -> None:
    """In place of the strategies' sleep between two looks."""
    _came.wait(SAFETY_SECONDS)
    _came.clear()


def _sleep(seconds: float) -> None:
    """time.sleep in a worker, which the task's timeout can end."""
    worker = getattr(_mine, "worker", None)
    if worker is None:
        time.sleep(seconds)
    else:
        worker.woken.wait(seconds)


def _time_with(sleep: Callable[[float], None]) -> types.SimpleNamespace:
    return types.SimpleNamespace(**{**vars(time), "sleep": sleep})


def _lock(owner: Any, names: tuple[str, ...]) -> None:
    """One lock for these methods of this class and of all that were locked with the same family of classes."""
    lock = _LOADING if issubclass(owner, loader.PluginLoader) else threading.RLock()
    for name in names:
        plain = vars(owner)[name]

        def locked(self: Any, *args: Any, _plain: Any = plain, **kwargs: Any) -> Any:
            with lock:
                answer = _plain(self, *args, **kwargs)
                return iter(list(answer)) if inspect.isgenerator(answer) else answer

        setattr(owner, name, functools.wraps(plain)(locked))


_LOADING = threading.RLock()


@contextlib.contextmanager
def _alarm(cls: type[_alarm_timeout.AnsibleTimeoutError], timeout: int | None) -> Iterator[None]:
    """In place of alarm_timeout: raises cls(timeout) in this worker's thread, whatever it waits for."""
    worker: Thread | None = getattr(_mine, "worker", None)
    if worker is None or not timeout:
        with _STOCK_ALARM(cls, timeout):
            yield
        return
    if not isinstance(timeout, int) or not 0 <= timeout <= cls._MAX_TIMEOUT:
        raise ValueError(f"Timeout {timeout} is invalid, it must be between 0 and {cls._MAX_TIMEOUT}.")
    limit = _Limit(worker, cls, timeout)
    try:
        yield
    except BaseException:
        if limit.over():
            raise cls(timeout) from None
        raise
    if limit.over():
        raise cls(timeout)


_STOCK_ALARM = _alarm_timeout.AnsibleTimeoutError.alarm_timeout.__func__


class _Limit:
    """Raises an exception in a worker's thread after some seconds, unless over() was called before."""

    def __init__(self, worker: Thread, kind: type[_alarm_timeout.AnsibleTimeoutError], seconds: int) -> None:
        self._worker = worker
        self._exception = type(kind.__name__, (kind,), {"__init__": lambda self: kind.__init__(self, seconds)})
        self._lock = threading.Lock()
        self._fired = self._over = False
        worker.woken.clear()
        self._timer = threading.Timer(seconds, self._fire)
        self._timer.daemon = True
        self._timer.start()

    def _fire(self) -> None:
        with self._lock:
            if self._over:
                return
            self._fired = True
            self._raise(self._exception)
        self._worker.woken.set()
        self._worker.interrupt_connection(self._worker, self._exception())

    def over(self) -> bool:
        """No exception comes any more; whether one did."""
        self._timer.cancel()
        with self._lock:
            self._over = True
            if self._fired:
                self._raise(None)
        self._worker.woken.clear()
        return self._fired

    def _raise(self, exception: Any) -> None:
        """At this thread's next step in Python code; None takes it back."""
        argument = None if exception is None else ctypes.py_object(exception)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._worker.ident), argument)

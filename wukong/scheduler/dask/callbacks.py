"""Dask's own diagnostics (`ProgressBar`, `Profiler`, `Callback`...) told of a run. Nothing is paid when none is active.

They get the `state` dictionary that Dask's local scheduler keeps; it is kept with that scheduler's own functions.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import Any

from dask._task_spec import convert_legacy_graph
from dask.callbacks import Callback, local_callbacks, normalize_callback
from dask.local import finish_task, start_state_from_dask

from wukong.executor.alone import Walk
from wukong.executor.effects import Dropped
from wukong.scheduler.dask.graphs import Graph


def active(callbacks: Any) -> bool:
    """Return whether any callback wants to know of a run: of those given with the call, else of those registered."""
    return bool(Callback.active if callbacks is None else callbacks)


_one_bar = Lock()


@contextmanager
def progress(callbacks: Any) -> Iterator[Any]:
    """Return callbacks with Dask's progress bar among them, where somebody sees it: on a terminal, or in a notebook.

    Computes inside of tasks and in other threads have none meanwhile. What takes no second shows nothing.
    """
    seen = sys.stderr is not None and (sys.stderr.isatty() or "ipykernel" in sys.modules)
    if not seen or not _one_bar.acquire(blocking=False):
        yield callbacks
        return
    try:
        from dask.diagnostics import ProgressBar

        bar = ProgressBar(minimum=1.0, out=sys.stderr)
        yield [*(Callback.active if callbacks is None else _listed(callbacks)), bar]
    finally:
        _one_bar.release()


class Told:
    """An `Observer` that tells Dask's callbacks of each task."""

    def __init__(self, callbacks: list[tuple[Callable[..., None] | None, ...]], graph: Graph) -> None:
        self._callbacks = callbacks
        self._begun: list[tuple[Callable[..., None] | None, ...]] = []
        self.graph = graph
        self.state: dict[str, Any] = {}
        self._wanted: set[Any] = set()
        self._priority: Callable[[Any], int] = int

    def start(self) -> None:
        """Tell that a run begins. A callback may change the graph here, as `dask.cache.Cache` does."""
        for callback in self._callbacks:
            if callback[0]:
                callback[0](self.graph)
            self._begun.append(callback)

    def ordered(self, tasks: Walk, given: dict[Any, Any]) -> None:
        """Tell in which state the run begins."""
        position = {key: index for index, key in enumerate(tasks.keys)}
        self._wanted = set(tasks.wanted)
        self._priority = lambda key: position.get(key, -1)
        # Dask looks whether values are true, which not every array says.
        self.state = start_state_from_dask(self.graph, dict.fromkeys(given, True), self._priority, keys=self._wanted)
        self.state["cache"].update(given)
        self._tell(1, self.graph, self.state)

    def started(self, key: Any) -> None:
        for alias in self._left_out(key):
            self._start_task(alias)
            self.finished(alias, self.state["cache"][next(iter(self.state["dependencies"][alias]))])
        self._start_task(key)

    def _left_out(self, key: Any) -> list[Any]:
        """Return the aliases that this task reads and that nobody ran, in order: a compiled plan has none."""
        state = self.state
        found: dict[Any, None] = {}
        queue = [key]
        for reader in queue:
            for read in state["dependencies"].get(reader, ()):
                if read not in state["cache"] and read not in state["finished"] and read not in state["released"]:
                    found.pop(read, None)
                    found[read] = None
                    queue.append(read)
        return list(found)[::-1]

    def _start_task(self, key: Any) -> None:
        ready = self.state["ready"]
        if key in self.state["cache"]:
            return
        # Ordered as the walk is, so it is nearly always the last one.
        if ready and ready[-1] == key:
            ready.pop()
        elif key in ready:
            ready.remove(key)
        self.state["running"].add(key)
        self._tell(2, key, self.graph, self.state)

    def finished(self, key: Any, value: Any) -> None:
        if key not in self.state["running"] or value is Dropped:
            return
        self.state["cache"][key] = value
        finish_task(self.graph, key, self.state, self._wanted, self._priority)
        self._tell(3, key, value, self.graph, self.state, get_ident())

    def finish(self, failed: bool) -> None:
        """Tell those told of the beginning that the run is over."""
        for callback in self._begun:
            if callback[4]:
                callback[4](self.graph, self.state, failed)

    def _tell(self, which: int, *what: Any) -> None:
        for callback in self._callbacks:
            told = callback[which]
            if told:
                told(*what)


@contextmanager
def telling(callbacks: Any, graph: Graph) -> Iterator[Told]:
    """Tell the callbacks of one run; computes inside its tasks are not told of, as with Dask.

    Parameters
    ----------
    callbacks : list or tuple of callbacks, or None
        Those to tell; None for all that are registered.
    graph : dict
        The run's graph. `Told.graph` is the one to run, which callbacks may have changed.
    """
    with local_callbacks(None if callbacks is None else _listed(callbacks)) as found:
        told = Told([normalize_callback(callback) for callback in found], convert_legacy_graph(graph))
        failed = True
        try:
            told.start()
            yield told
            failed = False
        finally:
            told.finish(failed)


def _listed(callbacks: Any) -> Any:
    """Return several callbacks, also where one was given."""
    if isinstance(callbacks, Callback) or (
        isinstance(callbacks, tuple) and not isinstance(callbacks[0], tuple | Callback)
    ):
        return [callbacks]
    return callbacks

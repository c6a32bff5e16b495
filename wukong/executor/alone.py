"""The client walks a whole graph alone: the first executor, and often the only one. Knows neither Dask nor any store.

A walk is a list of tasks in an order in which every input comes before its use, and for each value the last task that
uses it. That is all it takes to keep no value longer than needed, with no counting while tasks run.
"""

import contextlib
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from wukong.events import FEW, Observer, Stamps

Key = Hashable
Evaluate = Callable[[Any, dict[Any, Any]], Any]


@dataclass(slots=True)
class Walk:
    """Tasks in the order in which they run; the three lists are parallel.

    Attributes
    ----------
    keys, nodes : list
        The name of each task, and what `evaluate` makes its value from.
    inputs : list of collections of keys
        The distinct keys each task reads.
    last : dict
        For each key, the key of the last task that reads it, or None if its value is to stay.
    wanted : list of keys
        Distinct keys whose values were asked for.
    notes : mapping of key to object
        What is said of a task beside what it does; a walk itself pays no heed to it.
    """

    keys: list[Any]
    nodes: list[Any]
    inputs: list[Collection[Any]]
    last: dict[Any, Any]
    wanted: list[Any]
    notes: Mapping[Any, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(slots=True)
class Taken:
    """Where a walk was taken over: the task that ran then, and the value it gave."""

    index: int
    value: Any

    def give(self) -> Any:
        """Return the value and forget it, so that it lives no longer than its readers need it."""
        value, self.value = self.value, None
        return value


def walk(
    tasks: Walk,
    evaluate: Evaluate,
    values: dict[Any, Any],
    observer: Observer | None = None,
    baton: list[int] | None = None,
    stamps: Stamps | None = None,
    why: Sequence[BaseException] = (),
) -> Taken | None:
    """Run all tasks, one after the other, each value being dropped after its last use.

    Parameters
    ----------
    tasks : Walk
        What to run.
    evaluate : callable
        Called as ``evaluate(node, values)`` for the value of a node.
    values : dict
        Values that are known before; afterwards it has those wanted, too.
    observer : Observer, optional
        Told of each task.
    baton : list, optional
        Holds the number of the task that runs, while it runs. Another thread that takes it out takes the walk over
        from there, and this one ends with that task, leaving `values` as they were when it began.
    stamps : Stamps, optional
        Is given the time at which each task ended; of many that are very short, the first ones only.
    why : sequence of BaseException, optional
        Empty. If another thread adds an error, that is raised before the next task.

    Returns
    -------
    Taken or None
        None if the walk came to its end.

    Raises
    ------
    BaseException
        Whatever a task raises, as it is, with a note that names the task and the way to what was wanted.
    """
    last = tasks.last
    if baton is None:
        baton = []
    clock = perf_counter
    times = None if stamps is None else stamps.times
    if times is not None:
        times.append(clock())
    # Known before the loop begins, so that a failure of the very first task can be explained.
    key = None
    try:
        for index, (key, node, inputs) in enumerate(zip(tasks.keys, tasks.nodes, tasks.inputs, strict=True)):
            if why:
                break
            if observer is not None:
                observer.started(key)
            baton.append(index)
            value = evaluate(node, values)
            if times is not None:
                times.append(clock())
                if index == FEW and stamps is not None and stamps.enough():
                    times = None
            try:
                # Only one of two threads gets it, so there is no need of a lock.
                baton.pop()
            except IndexError:
                return Taken(index, value)
            values[key] = value
            if observer is not None:
                observer.finished(key, value)
            for read in inputs:
                # The very object stands in both places, so identity will do.
                if last[read] is key:
                    del values[read]
        else:
            return None
    except BaseException as error:
        explain(error, tasks, key)
        raise
    raise why[0]


def explain(error: BaseException, tasks: Walk, key: Key) -> None:
    """Add to the error of a task its key, as `wukong_task`, and a note: the key, and the way to what was wanted."""
    note = f"wukong: task {key!r} failed" + _way(tasks, key)
    # Some errors can take no note: those of a frozen dataclass, for one.
    with contextlib.suppress(Exception):
        vars(error)["wukong_task"] = key
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)


def _way(tasks: Walk, key: Key) -> str:
    """Say by which tasks the value of `key` would have come to what was wanted, the shortest way."""
    readers: dict[Any, list[Any]] = {}
    for reader, inputs in zip(tasks.keys, tasks.inputs, strict=True):
        for read in inputs:
            readers.setdefault(read, []).append(reader)
    came_from: dict[Any, Any] = {key: None}
    wanted = set(tasks.wanted)
    for reached in (queue := [key]):
        if reached in wanted:
            way = list(_back(reached, came_from))[::-1]
            if len(way) == 1:
                return ""
            if len(way) > 12:
                way[6:-5] = [f"({len(way) - 11} more)"]
            return ", on the way " + " -> ".join(step if type(step) is str else repr(step) for step in way)
        for reader in readers.get(reached, ()):
            if reader not in came_from:
                came_from[reader] = reached
                queue.append(reader)
    return ""


def _back(key: Any, came_from: dict[Any, Any]) -> Iterator[Any]:
    while key is not None:
        yield key
        key = came_from[key]

"""Graphs that run in the background for a client, and running again what failed."""

import weakref
from collections.abc import Sequence
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple

from wukong.client.functions import get, last_run
from wukong.errors import AttachUnsupported, ConfigError
from wukong.ids import new_job
from wukong.scheduler.course import Course, Running, cancelled, present
from wukong.scheduler.dask.collections import futures_read
from wukong.scheduler.dask.nodes import dependencies, evaluate
from wukong.scheduler.dask.retries import with_retries
from wukong.scheduler.futures.call import Call
from wukong.scheduler.futures.engine import SELECT, Engine
from wukong.scheduler.futures.lanes import Turn
from wukong.scheduler.left import Left
from wukong.scheduler.tries import Retry


def submit_job(
    engine: Engine,
    graph: Any,
    keys: list[Any],
    options: dict[str, Any],
    priority: float,
    retries: int | Retry,
    ran: Any,
) -> dict[Any, Call]:
    """Have a graph computed in the background; return, for each key, the call that gives its value.

    Parameters
    ----------
    engine : Engine
        Whose job it is.
    graph, keys, options
        As in `wukong.get`.
    priority : float
        Higher ones begin first.
    retries : int or Retry
        How often a task may run again.
    ran : weak method
        Is told of the figures of the run.
    """
    read = futures_read(graph, keys, engine.calls) if engine.calls else {}
    wanted = list(dict.fromkeys(keys))
    course = Course(present.get(), new_job())
    options = {**options, "packs": engine.processes.find, "admission": engine.admission, "course": course}
    args = graph, wanted, options, retries, ran, read
    inputs = tuple(read.values())
    job = Job(engine, course.job, work, args, inputs=inputs, priority=priority, context=copy_context())
    job.course = course
    course.tell(partial(_ended, weakref.ref(job)))
    parts = {key: Call(engine, key, None, inputs=(job,), part=index) for index, key in enumerate(wanted)}
    engine.submit([job], engine.jobs, Turn())
    engine.submit(parts.values(), SELECT)
    return parts


def _ended(found: "weakref.ref[Job]", error: BaseException) -> None:
    """Have those who wait for a job whose compute ends wait no longer; its own thread may be in a task."""
    if (job := found()) is not None:
        job.engine.failed(job, error)


class Job(Call):
    """The call that computes a graph. What it reads it does not open: the graph's tasks do."""

    __slots__ = ("course",)
    course: Course

    def interrupt(self, why: str) -> list[Running]:
        """See `Call`."""
        return self.course.end(cancelled(why))

    def lessen(self, parts: Sequence[Call]) -> list[Running]:
        """See `Call`."""
        return self.course.drop([part.key for part in parts])

    def perform(self) -> Any:
        """See `Call`."""
        return work(*self.args)


class JobAt(NamedTuple):
    """A graph in the background, as `Client.jobs` tells of it.

    Attributes
    ----------
    name : str
        What `Client.attach` takes.
    keys : list of keys
        What is asked for.
    tasks, done : int
        How many tasks there are, and how many are through; 0 before it has begun.
    store : str or None
        Where its records and values are; None for in this process.
    """

    name: str
    keys: list[Any]
    tasks: int
    done: int
    store: str | None


def jobs(engine: Engine) -> dict[str, tuple[JobAt, list[Call]]]:
    """Return the jobs of a client that are not done, each with the calls that stand for its parts."""
    found = {}
    with engine.lock:
        for job in [call for call in engine.undone if isinstance(call, Job)]:
            parts = [part for part in job.readers if not part.done]
            keys, course = [part.key for part in parts], job.course
            found[job.key] = JobAt(job.key, keys, course.size, course.done(), job.args[2]["store"]), parts
    return found


def not_ours(name: str, store: str | None) -> AttachUnsupported:
    """Return the error of a job that was begun by another client."""
    left = "" if store is None else "; what it left in the store, `wukong clean --store URL` removes"
    return AttachUnsupported(
        f"there is no job {name!r} of this client that is not done, and no other can be gone on with: on the local "
        f"platform executors end with the client that started them. Compute it again{left}"
    )


def given(call: Call) -> Any:
    """Return the value of a call that is finished as a graph is given it."""
    return call.value if call.sealed is None else Left(call.sealed, partial(call.engine.open, call))


def work(
    graph: dict[Any, Any],
    keys: list[Any],
    options: dict[str, Any],
    retries: int | Retry,
    ran: "weakref.WeakMethod[Any]",
    read: dict[Any, Call],
) -> tuple[Any, ...]:
    """Return the values of keys of a graph.

    Parameters
    ----------
    graph, keys, options
        As in `wukong.get`.
    retries : int or Retry
        How often a task may run again.
    ran : weak method
        Is told of the figures of the run.
    read : dict of key to Call
        Finished ones, whose values the graph needs.
    """
    cache = {key: given(call) for key, call in read.items()}
    nodes = with_retries(graph, retries) if retries else graph
    values: tuple[Any, ...] = get(nodes, keys, cache=cache, leave=True, **options)
    tell = ran()
    if tell is not None:
        tell(last_run())
    return values


def recreate(call: Call) -> None:
    """Run again, in this thread, a call that failed itself."""
    if call.lane is SELECT:
        raise ConfigError(f"the call {call.key!r} was one of a batch; submit it alone to run it here again")
    if not isinstance(call, Job):
        call.perform()
        return
    graph, keys, options, _, _, read = call.args
    cache = {key: one.engine.open(one) for key, one in read.items()}
    alone = {**options, "granules": "inline", "store": None, "course": None}
    key = getattr(call.error, "wukong_task", None)
    if key is None or key not in graph:
        get(graph, keys, cache=cache, **alone)
        return
    reads = [name for name in dependencies(graph, key) if name in graph or name in cache]
    values = dict(zip(reads, get(graph, reads, cache=cache, **alone), strict=True))
    evaluate(graph[key], values)

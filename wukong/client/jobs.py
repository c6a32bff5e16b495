"""Graphs that run in the background for a client, and running again what failed."""

import re
import weakref
from collections.abc import Sequence
from contextvars import copy_context
from functools import partial
from typing import Any, Final, NamedTuple

from wukong import config
from wukong.client.functions import get, last_run
from wukong.errors import AttachUnsupported, ConfigError
from wukong.ids import new_job
from wukong.scheduler import stores
from wukong.scheduler.course import Course, Running, cancelled, present
from wukong.scheduler.dask.collections import futures_read
from wukong.scheduler.dask.nodes import dependencies, evaluate
from wukong.scheduler.dask.retries import with_retries
from wukong.scheduler.futures.call import Call
from wukong.scheduler.futures.engine import SELECT, Engine
from wukong.scheduler.futures.lanes import Turn
from wukong.scheduler.left import Left
from wukong.scheduler.run import go_on
from wukong.scheduler.tries import Retry

_NAME: Final = re.compile(r"[\w.-]{1,100}", re.ASCII)


def submit_job(
    engine: Engine,
    graph: Any,
    keys: list[Any],
    options: dict[str, Any],
    priority: float,
    retries: int | Retry,
    ran: Any,
    name: str | None = None,
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
    name : str, optional
        Of the job.

    Raises
    ------
    ConfigError
        If there is a job of this name.
    """
    if name is not None:
        _refuse(name, engine, options["store"])
    read = futures_read(graph, keys, engine.calls) if engine.calls else {}
    wanted = list(dict.fromkeys(keys))
    course = Course(present.get(), name or new_job())
    options = {**options, "packs": engine.processes.find, "admission": engine.admission, "course": course}
    args = graph, wanted, options, retries, ran, read
    inputs = tuple(read.values())
    return _begin(Job(engine, course.job, work, args, inputs=inputs, priority=priority, context=copy_context()), course)


def attach_job(engine: Engine, name: str, options: dict[str, Any], ran: Any) -> dict[Any, Call]:
    """Go on with a job whose client has died; return, for each key, the call that gives its value.

    Parameters
    ----------
    engine, options, ran
        As in `submit_job`.
    name : str
        Of the job.

    Raises
    ------
    AttachUnsupported
        If there is no such job in the store, or its client lives.
    """
    from wukong.scheduler import note as notes

    store = options["store"]
    values = None if store in (None, "embedded") else stores.at(store, name).values
    note = None if values is None else notes.read(values)
    if note is None:
        raise not_ours(name, store)
    if note.owner.alive:
        raise AttachUnsupported(
            f"the client of job {name!r} lives, in process {note.owner.pid}: take the results there, or end it first"
        )
    course = Course(job=name)
    here = {"packs": engine.processes.find, "admission": engine.admission, "course": course}
    args = None, note.walk.wanted, {**options, **here}, 0, ran, note
    return _begin(Attached(engine, name, go_on, args, context=copy_context()), course)


def _begin(job: "Job", course: Course) -> dict[Any, Call]:
    job.course = course
    course.tell(partial(_ended, weakref.ref(job)))
    engine, wanted = job.engine, job.args[1]
    parts = {key: Call(engine, key, None, inputs=(job,), part=index) for index, key in enumerate(wanted)}
    for part in parts.values():
        part.job = job.key
    engine.submit([job], engine.jobs, Turn())
    engine.submit(parts.values(), SELECT)
    return parts


def _refuse(name: str, engine: Engine, store: str | None) -> None:
    """Refuse a name that no job can have, or that one has."""
    from wukong.scheduler import note as notes

    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise ConfigError(f"name={name!r} is not allowed; use up to 100 letters, digits and any of _.-")
    values = None if store in (None, "embedded") else stores.at(store, name).values
    if name in jobs(engine) or (values is not None and notes.read(values) is not None):
        raise ConfigError(
            f"there is a job {name!r}: go on with it by attach({name!r}), remove it by `wukong clean`, or use another "
            "name"
        )


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


class Attached(Job):
    """The call that goes on with a job of another client."""

    __slots__ = ()

    def perform(self) -> Any:
        """See `Call`."""
        _, _, options, _, ran, note = self.args
        own = {name: options[name] for name in ("packs", "admission", "course")}
        values = go_on(note, config.resolve({name: options[name] for name in config.NAMES}), **own)
        tell = ran()
        if tell is not None:
            tell(last_run())
        return values


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
    if store in (None, "embedded"):
        return AttachUnsupported(
            f"there is no job {name!r} of this client that is not done, and no other can be gone on with: without a "
            "store by its URL, executors end with the client that started them, and so do values. Compute it again"
        )
    return AttachUnsupported(
        f"there is no job {name!r} of this client that is not done, and the store has none that was begun by "
        "`Client.compute` or `persist`: it is over, its client died before it was in the store, or nobody has touched "
        "it for too long. Compute it again"
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
    if graph is None:
        raise ConfigError(f"job {call.key!r} was begun by another client, which had its graph; compute that here")
    cache = {key: one.engine.open(one) for key, one in read.items()}
    alone = {**options, "granules": "inline", "store": None, "course": None}
    key = getattr(call.error, "wukong_task", None)
    if key is None or key not in graph:
        get(graph, keys, cache=cache, **alone)
        return
    reads = [name for name in dependencies(graph, key) if name in graph or name in cache]
    values = dict(zip(reads, get(graph, reads, cache=cache, **alone), strict=True))
    evaluate(graph[key], values)

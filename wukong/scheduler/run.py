"""One compute, from the graph as it was given to the results: who runs it is decided here.

granules="inline"   the client walks alone
granules="auto"       the client walks alone, and hands over to threads, and from these to processes, what that pays for
granules="threads"    compiled and launched at once
granules="processes"  the same; the client runs only what puts the whole result together
a store               compiled, published and launched, every value and edge through the store
"""

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from threading import current_thread, local
from time import perf_counter
from typing import Any

from dask import config as dask_config

from wukong.config import Options
from wukong.cost import IN_PROCESS
from wukong.events import Run, Stamps
from wukong.executor.alone import Taken, Walk, walk
from wukong.platforms.local import admission as admissions
from wukong.platforms.local.admission import Admission, within
from wukong.platforms.local.packs import in_worker, pack_of
from wukong.platforms.local.processors import workers_here
from wukong.scheduler.annotations import agreed
from wukong.scheduler.budget import Budget
from wukong.scheduler.company import Packs
from wukong.scheduler.compiled import Compiled
from wukong.scheduler.course import Course, Running, present
from wukong.scheduler.dask.callbacks import active, progress, telling
from wukong.scheduler.dask.graphs import (
    arrange,
    flatten,
    merge,
    refuse_lost_writes,
    refuse_unshared,
    shares_memory,
    trace,
)
from wukong.scheduler.dask.nodes import evaluate
from wukong.scheduler.left import Left, Values
from wukong.scheduler.needed import Needed
from wukong.scheduler.note import Note
from wukong.scheduler.recovery import Terms
from wukong.scheduler.relay import Lookout, Relay
from wukong.scheduler.trace import alone

_lookout = Lookout(IN_PROCESS.patience)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lookout.forget)
_latest = local()


def run(
    graph: Any,
    keys: Any,
    options: Options,
    *,
    cache: Mapping[Any, Any] | None = None,
    callbacks: Any = None,
    packs: Packs = pack_of,
    admission: Admission | None = None,
    leave: bool = False,
    course: Course | None = None,
) -> Any:
    """Return the values of keys.

    Parameters
    ----------
    graph : Mapping, HighLevelGraph or Expr
        As a Dask scheduler is given it.
    keys : key, or nested lists of keys
        What is asked for.
    options : Options
        How to run.
    cache : Mapping, optional
        Values of keys known before, or `Left`; Dask's ``cache`` configuration if None.
    callbacks : list, optional
        Dask's callbacks to tell; those registered if None.
    packs : Packs, optional
        Where processes come from.
    admission : Admission, optional
        The books of what annotated tasks need; the machine's if None.
    leave : bool
        Whether results that processes give are to stay where they are; then they are returned as `Left`.
    course : Course, optional
        How somebody else may end it; one within that of the task that asks, if a task does, if None.

    Returns
    -------
    Any
        The value of one key; of a list, a tuple.

    Raises
    ------
    ConfigError, GraphError
        Before anything runs.
    BaseException
        What a task raised.
    """
    if options.progress:
        with progress(callbacks) as told_too:
            bare = replace(options, progress=False)
            return run(
                graph,
                keys,
                bare,
                cache=cache,
                callbacks=told_too,
                packs=packs,
                admission=admission,
                leave=leave,
                course=course,
            )
    course = course or Course(present.get())
    token = present.set(course)
    try:
        with nullcontext() if options.budget is None else Budget(course, options.budget):
            return _run_through(
                graph, keys, options, cache, callbacks, packs, admission or admissions.machine, leave, course
            )
    finally:
        present.reset(token)
        course.over()


def go_on(note: Note, options: Options, *, packs: Packs, admission: Admission, course: Course) -> Any:
    """Return the values of what was asked of a job that another client has begun, whatever it takes.

    Parameters
    ----------
    note : Note
        What that one left.
    options : Options
        How to run, with the store of the job.
    packs, admission : Packs, Admission
        As in `run`.
    course : Course
        With the name of the job.
    """
    began = perf_counter()
    walk, values = note.walk, Values(note.known, leave=True)
    workers = options.workers or dask_config.get("num_workers", None) or workers_here()
    executed = "processes" if options.granules == "processes" else "threads"
    terms = Terms(options.attempts, options.stragglers)
    token = present.set(course)
    try:
        with nullcontext() if options.budget is None else Budget(course, options.budget):
            course.begins(note.plan.size, partial(Needed, walk))
            compiled = Compiled(
                walk, values, workers, options.store, None, -1, executed, packs, admission, course.job, terms, note
            )
            compiled.follow(course)
            with compiled:
                figures = compiled.finish()
    finally:
        present.reset(token)
        course.over()
    figures.tasks, figures.seconds = note.plan.size, perf_counter() - began
    _latest.run = figures
    return arrange(walk.wanted, values.known())


def _run_through(
    graph: Any,
    keys: Any,
    options: Options,
    cache: Mapping[Any, Any] | None,
    callbacks: Any,
    packs: Packs,
    admission: Admission,
    leave: bool,
    course: Course,
) -> Any:
    began = perf_counter()
    values = dict(cache or dask_config.get("cache", None) or ())
    nodes, wanted, known = merge(graph), flatten(keys), list(values)
    if leave or Left in map(type, values.values()):
        values = Values(values, leave)
    if active(callbacks):
        with telling(callbacks, nodes) as told:
            tasks = trace(told.graph, wanted, known)
            told.ordered(tasks, {key: values[key] for key in known})
            course.begins(len(tasks), partial(Needed, tasks))
            figures = _run(tasks, values, options, told, packs, admission, course)
    else:
        tasks = trace(nodes, wanted, known)
        course.begins(len(tasks), partial(Needed, tasks))
        figures = _run(tasks, values, options, None, packs, admission, course)
    figures.tasks, figures.seconds = len(tasks), perf_counter() - began
    figures.retries += course.retried
    _latest.run = figures
    return arrange(keys, values.known() if leave and isinstance(values, Values) else values)


def _run(
    tasks: Walk,
    values: dict[Any, Any],
    options: Options,
    observer: Any,
    packs: Packs,
    admission: Admission,
    course: Course,
) -> Run:
    """Add the values of the wanted keys to `values`."""
    workers = options.workers or dask_config.get("num_workers", None) or workers_here()
    granules = "inline" if in_worker() else options.granules
    if tasks.notes:
        _agree(tasks, granules, options.store, admission)
    noted = bool(tasks.notes)
    terms = Terms(options.attempts, options.stragglers)
    if (
        options.store is not None
        or granules == "processes"
        or (granules == "threads" and workers > 1)
        or (granules != "auto" and noted)
    ):
        workers = 1 if granules == "inline" else workers
        if options.store is not None or granules == "processes":
            refuse_unshared(tasks.keys, disk=True)
            refuse_lost_writes(tasks)
        executed = granules if granules == "processes" else "threads"
        compiled = Compiled(
            tasks, values, workers, options.store, observer, -1, executed, packs, admission, course.job, terms
        )
        compiled.follow(course)
        with compiled, course.watched():
            return compiled.finish()
    stamps = Stamps()
    baton: list[int] = []
    thread = f"thread {current_thread().name}"
    course.at_work = lambda: [Running(tasks.keys[index], thread) for index in baton[-1:]]
    course.done = lambda: baton[-1] if baton else len(stamps)
    if not noted and (granules == "inline" or workers == 1 or len(tasks) < 3):
        walk(tasks, evaluate, values, observer, baton, stamps, course.why)
        return Run(executors=1, becomes=max(len(tasks) - 1, 0), parts=alone(tasks, stamps))
    with Relay(tasks, values, IN_PROCESS, workers, observer, packs, admission, course, baton, terms) as relay:
        if noted:
            relay.hand_over()
        _lookout.watch(relay)
        if noted:
            return relay.join()
        taken: Taken | None = walk(tasks, evaluate, values, observer, baton, stamps, course.why)
        if taken is None:
            return Run(executors=1, becomes=len(tasks) - 1, parts=alone(tasks, stamps))
        figures = relay.join(taken)
        figures.parts = (*alone(tasks, stamps), *figures.parts)
        return figures


def _agree(tasks: Walk, granules: str, store: str | None, admission: Admission) -> None:
    """Leave those notes of tasks that there is something to be done about; raise if that cannot be done."""
    if in_worker():
        # What a task computes in a worker runs right there, one task after the other, and is part of it.
        tasks.notes = {}
        return
    if granules == "auto" and (store is not None or shares_memory(tasks)):
        usual = "threads"
    else:
        usual = "threads" if granules == "inline" else granules
    notes = agreed(tasks.notes, usual, admission.limit)
    if within():
        notes = {key: note._replace(memory=0) for key, note in notes.items() if note.workers is not None or note.once}
    tasks.notes = notes


def last_run() -> Run | None:
    """Return the figures of this thread's last compute that succeeded, or None."""
    return getattr(_latest, "run", None)

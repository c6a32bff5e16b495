"""Graphs that run in the background for a client, and running again what failed."""

import weakref
from contextvars import copy_context
from itertools import count
from typing import Any

from wukong.client.functions import get, last_run
from wukong.errors import ConfigError
from wukong.scheduler.dask.collections import futures_read
from wukong.scheduler.dask.nodes import dependencies, evaluate
from wukong.scheduler.dask.retries import with_retries
from wukong.scheduler.futures.call import Call, Container, Input, fill
from wukong.scheduler.futures.engine import SELECT, Engine
from wukong.scheduler.futures.lanes import Turn

_numbers = count()


def submit_job(
    engine: Engine, graph: Any, keys: list[Any], options: dict[str, Any], priority: float, retries: int, ran: Any
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
    retries : int
        How often a task may run again.
    ran : weak method
        Is told of the figures of the run.
    """
    read = futures_read(graph, keys, engine.calls) if engine.calls else {}
    cache = Container(dict, [Input(index) for index in range(len(read))], tuple(read))
    wanted = list(dict.fromkeys(keys))
    options = {**options, "packs": engine.processes.find}
    args = Container(tuple, [graph, wanted, options, retries, ran, cache])
    inputs = tuple(read.values())
    job = Call(engine, f"job-{next(_numbers)}", work, args, inputs=inputs, priority=priority, context=copy_context())
    parts = {key: Call(engine, key, None, inputs=(job,), part=index) for index, key in enumerate(wanted)}
    engine.submit([job], engine.jobs, Turn())
    engine.submit(parts.values(), SELECT)
    return parts


def work(
    graph: dict[Any, Any],
    keys: list[Any],
    options: dict[str, Any],
    retries: int,
    ran: "weakref.WeakMethod[Any]",
    cache: dict[Any, Any],
) -> tuple[Any, ...]:
    """Return the values of keys of a graph.

    Parameters
    ----------
    graph, keys, options, cache
        As in `wukong.get`.
    retries : int
        How often a task may run again.
    ran : weak method
        Is told of the figures of the run.
    """
    values: tuple[Any, ...] = get(with_retries(graph, retries) if retries else graph, keys, cache=cache, **options)
    tell = ran()
    if tell is not None:
        tell(last_run())
    return values


def recreate(call: Call) -> None:
    """Run again, in this thread, a call that failed itself."""
    if call.lane is SELECT:
        raise ConfigError(f"the call {call.key!r} was one of a batch; submit it alone to run it here again")
    if call.function is not work:
        call.perform()
        return
    graph, keys, options, _, _, cache = fill(call.args, [read.engine.open(read) for read in call.inputs])
    alone = {**options, "granules": "inline", "store": None}
    key = getattr(call.error, "wukong_task", None)
    if key is None or key not in graph:
        get(graph, keys, cache=cache, **alone)
        return
    reads = [read for read in dependencies(graph, key) if read in graph or read in cache]
    values = dict(zip(reads, get(graph, reads, cache=cache, **alone), strict=True))
    evaluate(graph[key], values)

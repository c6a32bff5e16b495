"""What runs in the background for a client: a graph, or several calls as one; and running again what failed of them."""

import weakref
from contextvars import copy_context
from itertools import count
from typing import Any, NamedTuple

from wukong.client.functions import get, last_run
from wukong.errors import ConfigError
from wukong.executor.effects import Raised
from wukong.scheduler.dask.collections import futures_read
from wukong.scheduler.dask.nodes import dependencies, evaluate
from wukong.scheduler.dask.retries import again, with_retries
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
    args = Container(tuple, [graph, wanted, options, retries, ran, cache])
    inputs = tuple(read.values())
    job = Call(engine, f"job-{next(_numbers)}", work, args, inputs=inputs, priority=priority, context=copy_context())
    parts = {key: Call(engine, key, None, inputs=(job,), part=index) for index, key in enumerate(wanted)}
    engine.submit([job], engine.jobs, Turn())
    engine.submit(parts.values(), SELECT)
    return parts


class Piece(NamedTuple):
    """A call within another: its arguments have inputs of its own in them."""

    function: Any
    args: Any
    kwargs: Any
    retries: int


def submit_as_one(engine: Engine, calls: list[Call], turn: Turn) -> None:
    """Have calls run one after the other, as one call of which they are parts."""
    inputs = {read: index for index, read in enumerate(dict.fromkeys(read for call in calls for read in call.inputs))}
    items = []
    for part, call in enumerate(calls):
        own = Container(tuple, [Input(inputs[read]) for read in call.inputs])
        items.append(Container(tuple, [Piece(call.function, call.args, call.kwargs, call.retries), own]))
        call.forget()
        call.part = part
    whole = Call(
        engine,
        f"batch-{next(_numbers)}",
        work_through,
        Container(tuple, [Container(list, items)]),
        inputs=tuple(inputs),
        priority=calls[0].priority,
        context=copy_context(),
    )
    for call in calls:
        call.inputs = (whole,)
    engine.submit([whole], None, turn)
    engine.submit(calls, SELECT)


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


def work_through(items: list[Any]) -> list[Any]:
    """Return what each of several calls gives, or `Raised`; one after the other."""
    values: list[Any] = []
    for (function, args, kwargs, retries), inputs in items:
        try:
            values.append(again(retries, function, *fill(args, inputs), **fill(kwargs, inputs)))
        except Exception as error:
            values.append(Raised(error))
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

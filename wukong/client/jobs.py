"""What runs in the background for a client: a graph, or several calls as one; and running again what failed of them."""

import weakref
from typing import Any

from wukong.client.functions import get, last_run
from wukong.errors import ConfigError
from wukong.executor.effects import Raised
from wukong.scheduler.dask.nodes import dependencies, evaluate
from wukong.scheduler.dask.retries import again, with_retries
from wukong.scheduler.futures.call import Call, fill
from wukong.scheduler.futures.engine import SELECT


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
    for function, args, kwargs, retries, inputs in items:
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

"""One compute, from the graph as it was given to the results: who runs it is decided here."""

from collections.abc import Mapping
from threading import local
from time import perf_counter
from typing import Any

from dask import config as dask_config

from wukong.config import Options
from wukong.errors import ConfigError
from wukong.events import Run
from wukong.executor.alone import walk
from wukong.scheduler.dask.callbacks import active, telling
from wukong.scheduler.dask.graphs import arrange, flatten, merge, trace
from wukong.scheduler.dask.nodes import evaluate

_latest = local()


def run(
    graph: Any, keys: Any, options: Options, *, cache: Mapping[Any, Any] | None = None, callbacks: Any = None
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
        Values of keys known before; Dask's ``cache`` configuration if None.
    callbacks : list, optional
        Dask's callbacks to tell; those registered if None.

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
    began = perf_counter()
    if options.granules == "threads" or options.store is not None:
        raise ConfigError("this version runs every task in the client; use granules='auto' or 'inline', and store=None")
    values = dict(cache or dask_config.get("cache", None) or ())
    nodes = merge(graph)
    wanted = flatten(keys)
    if active(callbacks):
        with telling(callbacks, nodes) as told:
            tasks = trace(told.graph, wanted, values)
            told.ordered(tasks, values)
            walk(tasks, evaluate, values, told)
    else:
        tasks = trace(nodes, wanted, values)
        walk(tasks, evaluate, values)
    _latest.run = Run(tasks=len(tasks), seconds=perf_counter() - began)
    return arrange(keys, values)


def last_run() -> Run | None:
    """Return the figures of this thread's last compute that succeeded, or None."""
    return getattr(_latest, "run", None)

"""The public functions: a Dask scheduler (`get`), and the same behind Dask's own front doors (`compute`, `persist`).

Options of `wukong.config.Options` may be given to each of them; anything else is Dask's.
"""

import sys
from functools import partial
from typing import Any

import dask.base

from wukong import config
from wukong.errors import ConfigError
from wukong.events import Run


def get(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """Return the values of keys of a Dask graph: a Dask scheduler, as in ``x.compute(scheduler=wukong.get)``.

    Parameters
    ----------
    dsk : Mapping, HighLevelGraph or Expr
        The graph.
    keys : key, or nested lists of keys
        What is asked for. A key is a str, bytes, int, float or a tuple of keys.
    **kwargs
        Options of `wukong.config.Options`. Of Dask's own, `cache`, `callbacks` and `num_workers` are honoured, from its
        configuration, too; others concern other schedulers and are passed over.

    Returns
    -------
    Any
        The value of one key; of a list, a tuple.

    Raises
    ------
    ConfigError, GraphError
        Before anything runs.
    BaseException
        What a task raised, with a note that names the task.
    """
    from wukong.scheduler.run import run

    config.refuse_misspelled(kwargs)
    given = {name: kwargs[name] for name in config.NAMES if name in kwargs}
    if "workers" not in given and kwargs.get("num_workers") is not None:
        given["workers"] = kwargs["num_workers"]
    ours: dict[str, Any] = {name: kwargs[name] for name in ("packs", "admission", "course") if name in kwargs}
    options = {"options": config.resolve(given), "callbacks": kwargs.get("callbacks"), **ours}
    # Imported by whoever asks for a cache.
    reuse = sys.modules.get("wukong.reuse")
    kept = None if reuse is None else reuse.active()
    if kept is None:
        return run(dsk, keys, cache=kwargs.get("cache"), leave=kwargs.get("leave", False), **options)
    values, hits = kept.compute(run, dsk, keys, kwargs.get("cache"), **options)
    if hits and (figures := last_run()) is not None:
        found = f"{hits} result{'s' if hits > 1 else ''} from the cache"
        figures.where = f"{figures.where}; {found}" if figures.tasks else found
    return values


def compute(*args: Any, keys: Any = None, **options: Any) -> Any:
    """Compute Dask collections, or keys of a raw graph.

    Parameters
    ----------
    *args
        Collections, alone or anywhere inside lists, tuples, sets and dictionaries; or one raw graph, with `keys`.
    keys : key, or nested lists of keys, optional
        What to compute of a raw graph.
    **options
        Options of `wukong.config.Options`, or of `dask.compute`.

    Returns
    -------
    tuple
        A result for each argument; with `keys`, what `get` returns.

    Raises
    ------
    ConfigError, GraphError
        Before anything runs.
    BaseException
        What a task raised, with a note that names the task.

    Examples
    --------
    >>> compute({"a": 1, "b": (str, "a")}, keys="b")
    '1'
    """
    if keys is None:
        if len(args) == 1 and _is_raw(args[0]):
            raise ConfigError("this is a raw graph, so say which of its keys to compute: compute(graph, keys=...)")
        return dask.base.compute(*args, scheduler=_scheduler(options), **options)
    if len(args) != 1:
        raise ConfigError(f"keys= goes with one graph, but {len(args)} arguments are given; give the graph alone")
    return get(args[0], keys, **options)


def persist(*collections: Any, **options: Any) -> tuple[Any, ...]:
    """Compute Dask collections and return them as collections that hold their results.

    Parameters and errors are those of `compute`.
    """
    results: tuple[Any, ...] = dask.base.persist(*collections, scheduler=_scheduler(options), **options)
    return results


def _is_raw(arg: Any) -> bool:
    """Whether an argument is a graph of plain tuples rather than a dictionary with collections in it."""
    return type(arg) is dict and any(type(task) is tuple and task and callable(task[0]) for task in arg.values())


def _scheduler(options: dict[str, Any]) -> Any:
    """Take our options out of those given, and return `get` with them; that of the current client, if there is one."""
    config.refuse_misspelled(options)
    ours = {name: options.pop(name) for name in config.NAMES if name in options}
    config.resolve(ours)
    # Imported by whoever makes a client.
    current = sys.modules.get("wukong.client.current")
    client = None if current is None else current.current()
    mine = get if client is None else client.get
    return partial(mine, **ours) if ours else mine


def last_run() -> Run | None:
    """Return the figures of this thread's last compute that succeeded, or None."""
    from wukong.scheduler.run import last_run

    return last_run()

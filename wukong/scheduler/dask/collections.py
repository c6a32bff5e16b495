"""Collections on their way to futures and back: which keys stand for their results, and what is built on those.

The same steps as in `dask.base.compute` and `dask.base.persist`, without running anything in between.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dask._expr import CompositeExpr, FinalizeCompute, _ExprSequence
from dask._task_spec import TaskRef
from dask.base import _rebuild_composite_collection, collections_to_expr, is_dask_collection, tokenize
from dask.core import flatten
from dask.delayed import delayed

from wukong.scheduler.dask.graphs import Graph, merge, trace

__all__ = [
    "TaskRef",
    "finalised",
    "futures_in",
    "futures_read",
    "is_dask_collection",
    "persisted",
    "tokenize",
    "traversed",
]


def traversed(obj: Any) -> Any:
    """Return a collection for an object: itself, or, of a container with collections in it, a delayed one."""
    if type(obj) in (list, tuple, set, dict):
        whole = delayed(obj)
        return whole if len(whole.__dask_graph__()) > 1 else obj
    return obj


def finalised(collections: Sequence[Any], optimize: bool) -> tuple[Graph, list[Any]]:
    """Return a graph and, for each collection, the key of its result."""
    expr = FinalizeCompute(collections_to_expr(collections, optimize)).optimize()
    return merge(expr), list(flatten(expr.__dask_keys__()))


def persisted(
    collections: Sequence[Any], optimize: bool
) -> tuple[Graph, list[Any], Callable[[Mapping[Any, Any]], list[Any]]]:
    """Return a graph, the keys of all parts, and what builds the collections anew, given something for each key."""
    expr = collections_to_expr(collections, optimize)
    composite = any(isinstance(part, CompositeExpr) for part in _parts(expr))
    expr = expr.optimize()
    parts = _parts(expr) if composite else [None] * len(collections)
    if len(parts) != len(collections):
        parts = [None] * len(collections)
    keys = [list(flatten(part)) for part in expr.__dask_keys__()]

    def rebuild(found: Mapping[Any, Any]) -> list[Any]:
        built = []
        for collection, part, mine in zip(collections, parts, keys, strict=True):
            if isinstance(part, CompositeExpr):
                built.append(_rebuild_composite_collection(collection, mine, found, cull_to_child_keys=True))
            else:
                again, state = collection.__dask_postpersist__()
                built.append(again({key: found[key] for key in mine}, *state))
        return built

    return merge(expr), [key for mine in keys for key in mine], rebuild


def _parts(expr: Any) -> list[Any]:
    return list(expr.operands) if isinstance(expr, _ExprSequence) else [expr]


def futures_in(collection: Any) -> list[Any]:
    """Return the futures that a collection was built on."""
    return [node for node in merge(collection).values() if getattr(node, "__dask_future__", False)]


def futures_read(graph: Graph, wanted: list[Any], held: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the futures that a graph needs, by key.

    Parameters
    ----------
    graph : dict
        A future in it stands under its key, or only its key is read, which the graph does not have then.
    wanted : list of keys
        Whose values are asked for.
    held : mapping of key to call
        Those that somebody holds.

    Returns
    -------
    dict of key to call
    """
    found = {key: call for key, call in held.items() if key not in graph}
    found.update((key, node.call) for key, node in graph.items() if getattr(node, "__dask_future__", False))
    if not found:
        return found
    reads = set(wanted).union(*trace(graph, wanted, found).inputs)
    return {key: found[key] for key in reads if key in found}

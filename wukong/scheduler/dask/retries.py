"""Retries of tasks that raise, as annotations of Dask ask for: in place, on the same inputs. Not of lost workers."""

from collections.abc import Mapping
from functools import partial
from numbers import Integral
from typing import Any

from dask._task_spec import GraphNode, Task

from wukong.scheduler.dask.annotated import Annotated
from wukong.scheduler.futures.batches import again


def with_retries(graph: Mapping[Any, Any], retries: Any) -> dict[Any, Any]:
    """Return a graph whose tasks run again, so many times, if they raise.

    Parameters
    ----------
    graph : mapping of key to node
    retries : int or callable
        How many times; as in ``dask.annotate(retries=...)``, a function of the key may say it.
    """
    return {key: _again(node, retries(key) if callable(retries) else retries) for key, node in graph.items()}


def _again(node: Any, retries: Any) -> Any:
    if not isinstance(retries, Integral) or retries <= 0:
        return node
    if type(node) is tuple and node and callable(node[0]):
        return (partial(again, int(retries), node[0]), *node[1:])
    if type(node) is Task:
        args = [_again(arg, retries) if isinstance(arg, GraphNode) else arg for arg in node.args]
        return Task(node.key, partial(again, int(retries), node.func), *args, **node.kwargs)
    if type(node) is Annotated:
        return Annotated.of(_again(node.bare, retries), node.note)
    return node

"""Retries of tasks that raise, as annotations of Dask ask for: in place, on the same inputs. Not of lost workers."""

from collections.abc import Mapping
from functools import partial
from numbers import Integral
from typing import Any

from dask._task_spec import GraphNode, Task

from wukong.scheduler.dask.annotated import Annotated
from wukong.scheduler.tries import Retry, again, is_once, retry_of


def with_retries(graph: Mapping[Any, Any], retries: Any) -> dict[Any, Any]:
    """Return a graph whose tasks run again, so many times, if they raise.

    Parameters
    ----------
    graph : mapping of key to node
    retries : int, Retry or callable
        How many times, and when; as in ``dask.annotate(retries=...)``, a function of the key may say it.
    """
    if callable(retries) and not isinstance(retries, Retry):
        return {key: _again(node, retries(key)) for key, node in graph.items()}
    return {key: _again(node, retries) for key, node in graph.items()}


def _again(node: Any, retries: Any) -> Any:
    if not isinstance(retries, Integral | Retry) or (retry := retry_of(retries)) is None:
        return node
    if type(node) is tuple and node and callable(node[0]):
        return node if is_once(node[0]) else (partial(again, retry, node[0]), *node[1:])
    if type(node) is Task and not is_once(node.func):
        args = [_again(arg, retries) if isinstance(arg, GraphNode) else arg for arg in node.args]
        return Task(node.key, partial(again, retry, node.func), *args, **node.kwargs)
    if type(node) is Annotated and not node.note.once:
        return Annotated.of(_again(node.bare, retries), node.note)
    return node

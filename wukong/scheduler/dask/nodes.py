"""Running one of Dask's nodes, given the values of its inputs. Not in which order nodes run.

Dask's own ``node(values)`` builds a set, a dictionary and a closure with each call, and orders a fused graph anew each
time; this does what it means and nothing else. Nodes of unknown classes run by their own ``__call__``.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from dask._task_spec import (
    Alias,
    DataNode,
    Dict,
    GraphNode,
    List,
    Set,
    Task,
    TaskRef,
    Tuple,
    _execute_subgraph,
    convert_legacy_task,
)

from wukong.executor.alone import walk
from wukong.scheduler.dask.graphs import trace

Values = dict[Any, Any]


def evaluate(node: Any, values: Values) -> Any:
    """Return the value of a node.

    Parameters
    ----------
    node : GraphNode or tuple
        One of Dask's nodes, or a plain ``(function, *arguments)`` in which arguments that are keys stand for values.
    values : dict
        Has at least the values of the node's inputs.
    """
    kind = type(node)
    if kind is Task:
        args = [
            values[arg.key] if type(arg) is TaskRef else arg if type(arg) in _LITERALS else _argument(arg, values)
            for arg in node.args
        ]
        if node.kwargs:
            return node.func(*args, **{name: _argument(arg, values) for name, arg in node.kwargs.items()})
        if node.func is _execute_subgraph:
            return _fused(*args)
        return node.func(*args)
    if kind is tuple:
        get = values.get
        return node[0](*[get(arg, arg) for arg in node[1:]])
    if kind is Alias:
        return values[node.target]
    if kind is DataNode:
        return node.value
    return _argument(node, values)


def dependencies(graph: Mapping[Any, Any], key: Any) -> list[Any]:
    """Return the keys that the task of a key reads."""
    node = graph[key]
    if not isinstance(node, GraphNode):
        node = convert_legacy_task(key, node, graph)
    return list(node.dependencies) if isinstance(node, GraphNode) else []


def data(key: Any, value: Any) -> Any:
    """Return the node of a value that is known."""
    return DataNode(key, value)


def _argument(arg: Any, values: Values) -> Any:
    kind = type(arg)
    if kind in _LITERALS:
        return arg
    if kind is TaskRef:
        return values[arg.key]
    if kind is Task or kind is Alias or kind is DataNode:
        return evaluate(arg, values)
    if kind in _CONTAINERS:
        return _CONTAINERS[kind](
            [values[item.key] if type(item) is TaskRef else _argument(item, values) for item in arg.args]
        )
    if isinstance(arg, GraphNode):
        return arg({key: values[key] for key in arg.dependencies})
    if isinstance(arg, TaskRef):
        return values[arg.key]
    return arg


_LITERALS: Final = frozenset({int, str, float, bool, type(None), complex, bytes, slice, tuple, list, dict, type})

_CONTAINERS: Final[dict[type, Callable[[list[Any]], Any]]] = {
    List: lambda items: items,
    Tuple: tuple,
    Set: set,
    Dict: lambda items: dict(zip(items[::2], items[1::2], strict=True)),
}


def _fused(inner: dict[Any, GraphNode], wanted: Any, names: tuple[Any, ...], *given: Any) -> Any:
    values = dict(zip(names, given, strict=True))
    # The caller's frame holds `given` anyway, so inputs cannot be dropped earlier than this returns.
    walk(trace(inner, [wanted], values), evaluate, values)
    return values[wanted]


def functions_of(node: Any) -> list[Any]:
    """Return the functions that a node calls, or gives others to call."""
    found: list[Any] = []
    stack = [node]
    while stack:
        node = stack.pop()
        if type(node) is tuple and node and callable(node[0]):
            stack.extend(node)
        elif isinstance(node, Task):
            if node.func is _execute_subgraph:
                stack.extend(node.args[0].values())
            elif type(node) is Task:
                found.append(node.func)
            stack.extend((*node.args, *node.kwargs.values()))
        elif isinstance(node, DataNode):
            stack.append(node.value)
        elif callable(node) and not isinstance(node, type):
            found.append(node)
    return found

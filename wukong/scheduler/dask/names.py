"""Which keys stand for one value for ever: those whose names Dask made of everything that the value depends on."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from dask._task_spec import Task, _execute_subgraph

from wukong.scheduler.dask.graphs import Graph, trace

#: What `dask.base.tokenize` gives, with a number in blockwise fusions. What is random has dashes in it.
_TOKEN: Final = re.compile(r"-[0-9a-f]{32}(_\.\d+)?$")


#: Tasks that write, or read what may have changed: what they do is wanted each time.
_EFFECT: Final = re.compile(r"to[-_]|to(csv|hdf|json|orc|parquet|sql|zarr)|store|write|from_url")
#: Has a random name, even where nothing else has.
_FINALISER: Final = "finalize-"


def is_deterministic(key: Any) -> bool:
    """Return whether the name of a key was made of what it stands for, and its task is run for its value only."""
    name = _name(key)
    return type(name) is str and _TOKEN.search(name) is not None and not _EFFECT.match(name)


def _name(key: Any) -> Any:
    return key[0] if type(key) is tuple and key else key


def reusable(
    graph: Graph, wanted: list[Any], given: Mapping[Any, Any], kept: Collection[Any]
) -> tuple[list[Any], list[Any]]:
    """Return which of the kept values a graph needs, and which wanted keys are worth keeping.

    Parameters
    ----------
    graph : dict
    wanted : list of keys
        Whose values are asked for.
    given : mapping of key to value
        Values known otherwise.
    kept : collection of keys
        Whose values were kept earlier.

    Returns
    -------
    needed, pure : lists of keys
        A key is pure if it is deterministic, and so is every key that its value comes from. Of a wanted key whose task
        only puts a whole result together, under a random name, those that it reads are in its place.
    """
    known = {key for key in kept if key in graph and key not in given}
    walk = trace(graph, wanted, {*known, *given})
    needed = known.intersection(set(wanted).union(*walk.inputs))
    impure = {key for key in given if not is_deterministic(key)}
    for key, node, inputs in zip(walk.keys, walk.nodes, walk.inputs, strict=True):
        if not impure.isdisjoint(inputs) or not all(map(is_deterministic, _within(key, node))):
            impure.add(key)
    done = {*given, *known, *impure}
    reads = dict(zip(walk.keys, walk.inputs, strict=True))
    offered: dict[Any, None] = {}
    stack = list(wanted)
    while stack:
        key = stack.pop()
        if _FINALISER in str(_name(key)):
            stack.extend(reads.get(key, ()))
        else:
            offered[key] = None
    return list(needed), [key for key in offered if key not in done]


def _within(key: Any, node: Any) -> Iterator[Any]:
    """Yield the key of a node and those of the tasks that were fused into it."""
    stack = [(key, node)]
    while stack:
        key, node = stack.pop()
        yield key
        if isinstance(node, Task) and node.func is _execute_subgraph:
            stack.extend(node.args[0].items())

"""Random graphs that may fail, with nested lists of keys; what Dask's synchronous scheduler makes of them."""

from collections.abc import Hashable
from typing import Any, NamedTuple

from dask._task_spec import GraphNode, Task, TaskRef
from dask.core import get_dependencies
from dask.local import get_sync
from hypothesis import strategies as st

from tests.plan.graphs import dask_graphs


class OddError(Exception):
    """Cannot be made from its own arguments."""

    def __init__(self, one: str, *, two: int) -> None:
        super().__init__(f"{one} {two}")


class Base(BaseException):
    """No Exception at all."""


FAILURES = (ValueError, OddError, Base, StopIteration, GeneratorExit, SystemExit)


class Fails:
    """A function that raises, always the same for one name, whatever it is called with."""

    def __init__(self, name: Hashable, kind: type[BaseException]) -> None:
        self.name, self.kind = name, kind

    def __call__(self, *_: Any) -> None:
        raise OddError(repr(self.name), two=2) if self.kind is OddError else self.kind(repr(self.name))


class Case(NamedTuple):
    """A graph, what is asked of it, and every way it may end."""

    graph: dict[Hashable, Any]
    keys: Any
    ends: frozenset[tuple[str, ...]]


def end_of(get: Any, graph: dict[Hashable, Any], keys: Any) -> tuple[str, ...]:
    """Return how a run ends, in a form that can be compared: its result, or the type and text of what it raised."""
    try:
        return ("gives", repr(get(graph, keys)))
    except BaseException as error:
        return ("raises", type(error).__name__, str(error))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a graph in which some tasks may fail, and nested lists of its keys."""
    graph, wanted = draw(dask_graphs())
    if draw(st.integers(0, 3)) == 0:
        for key in draw(st.lists(st.sampled_from(list(graph)), max_size=2)):
            node = graph[key]
            inputs = node.dependencies if isinstance(node, GraphNode) else get_dependencies(graph, key)
            graph[key] = Task(key, Fails(key, draw(st.sampled_from(FAILURES))), *map(TaskRef, inputs))
    leaf = st.sampled_from(wanted)
    keys = draw(st.just(wanted[0]) | st.just(wanted) | st.recursive(st.lists(leaf, max_size=3), _nested, max_leaves=5))
    end = end_of(get_sync, graph, keys)
    ends = {end}
    if end[0] == "raises":
        # Of tasks that fail, any may be first; each by itself shows its own failure.
        for key in _needed(graph, keys):
            ends.add(end_of(get_sync, graph, key))
        ends = {end for end in ends if end[0] == "raises"}
    return Case(graph, keys, frozenset(ends))


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, min_size=1, max_size=3)


def _needed(graph: dict[Hashable, Any], keys: Any) -> set[Hashable]:
    needed: set[Hashable] = set()
    left = [keys]
    while left:
        key = left.pop()
        if isinstance(key, list):
            left.extend(key)
        elif key not in needed:
            needed.add(key)
            node = graph[key]
            left.extend(node.dependencies if isinstance(node, GraphNode) else get_dependencies(graph, key))
    return needed

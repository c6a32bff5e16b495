"""Random graphs of Dask's nodes, and how to run a plan one task after another."""

from collections.abc import Hashable, Mapping
from typing import Any

from dask._task_spec import Alias, DataNode, Dict, List, Set, Task, TaskRef, Tuple
from hypothesis import strategies as st


def show(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """Return what it was called with, types included, so that no two different calls look alike."""
    return (
        "show",
        *((type(a).__name__, a) for a in args),
        *sorted((k, type(v).__name__, v) for k, v in kwargs.items()),
    )


def nothing(*args: Any, **kwargs: Any) -> None:
    """Return None, as a task may."""


def count(*args: Any, **kwargs: Any) -> int:
    """Return a number that depends on the number of arguments."""
    return len(args) + 10 * len(kwargs)


FUNCTIONS = (show, nothing, count)
DATA = st.sampled_from([None, 0, 1, True, 1.0, -0.0, 0.0, "x", b"x", (1, 2), "k0", slice(0, 3), ("k", 1)])
_NUMBER = st.integers(0, 20)
#: An argument before it is known which keys there are: what it is, and its parts.
_RECIPE = st.recursive(
    st.tuples(st.just("data"), DATA) | st.tuples(st.sampled_from(["ref", "alias"]), _NUMBER),
    lambda inner: st.tuples(
        st.sampled_from(["list", "tuple", "set", "dict", "task", "kwargs", "node"]), st.lists(inner, max_size=3)
    ),
    max_leaves=4,
)
_NODE = st.tuples(
    st.sampled_from(["task", "task", "kwargs", "chain", "chain", "alias", "data", "fused", "legacy"]),
    st.sampled_from(FUNCTIONS),
    st.lists(_RECIPE, max_size=4),
    st.lists(st.tuples(st.sampled_from(["task", "alias", "data", "deep"]), _NUMBER, DATA), max_size=4),
)
_GRAPH = st.tuples(st.lists(_NODE, min_size=1, max_size=14), st.lists(_NUMBER, min_size=1, max_size=4))


def dask_graphs() -> st.SearchStrategy[tuple[dict[Hashable, Any], list[Hashable]]]:
    """Draw a graph and the keys to ask of it: diamonds, repeats, aliases, containers, kwargs, fused tasks, legacy."""
    return _GRAPH.map(lambda drawn: _graph(*drawn))


def _graph(recipes: list[Any], wanted: list[int]) -> tuple[dict[Hashable, Any], list[Hashable]]:
    graph: dict[Hashable, Any] = {}
    keys: list[Hashable] = []
    for number, recipe in enumerate(recipes):
        key: Hashable = f"k{number}" if number % 3 else ("k", number)
        graph[key] = _node(key, keys, *recipe)
        keys.append(key)
    return graph, [keys[n % len(keys)] for n in wanted]


def _node(key: Hashable, keys: list[Hashable], kind: str, function: Any, args: list[Any], parts: list[Any]) -> Any:
    if kind == "data":
        return DataNode(key, args[0][1] if args else None)
    if not keys:
        return Task(key, show, len(args))
    made = [_argument(arg, keys) for arg in args]
    if kind == "chain":
        return Task(key, function, TaskRef(keys[-1]), 1)
    if kind == "alias":
        return Alias(key, keys[len(args) % len(keys)])
    if kind == "fused":
        return _fused(key, keys, made, parts)
    if kind == "legacy":
        used = [keys[n % len(keys)] for _, n, _ in parts]
        return (show, *used, len(args), [used, (show, 1)])
    if kind == "kwargs":
        return Task(key, function, *made[:1], **dict(zip("abcd", made[1:], strict=False)))
    return Task(key, function, *made)


def _argument(recipe: Any, keys: list[Hashable]) -> Any:
    kind, content = recipe
    if kind == "data":
        return content
    if kind in ("ref", "alias"):
        key = keys[content % len(keys)]
        return TaskRef(key) if kind == "ref" else Alias(key)
    parts = [_argument(part, keys) for part in content]
    if kind == "set":
        return Set(Task(None, count, *parts), 1)
    if kind == "dict":
        return Dict({f"k{i}": part for i, part in enumerate(parts)} | {2: 3})
    if kind == "kwargs":
        return Task(None, show, 1, **dict(zip("xyz", parts, strict=False)))
    if kind == "node":
        return DataNode(None, len(parts))
    return {"list": List, "tuple": Tuple}[kind](*parts) if kind != "task" else Task(None, show, *parts)


def _fused(key: Hashable, keys: list[Hashable], args: list[Any], recipes: list[Any]) -> Task:
    """A chain of tasks, some with other inputs too, some aliases or data, fused as Dask fuses them; some twice."""
    parts: list[Any] = [Task("inner", show, TaskRef(keys[-1]), *args)]
    for number, (kind, other, data) in enumerate(recipes):
        name, before = f"inner{number}", TaskRef(parts[-1].key)
        outer = TaskRef([*keys, *(part.key for part in parts)][-1 - other % (len(keys) + len(parts))])
        if kind == "alias":
            parts.append(Alias(name, before))
        elif kind == "data":
            parts.append(DataNode(f"data{number}", data))
            parts.append(Task(name, show, before, TaskRef(f"data{number}")))
        elif kind == "deep":
            parts.append(Task.fuse(Task("deep", show, before, outer), Task(name, show, TaskRef("deep")), key=name))
        else:
            parts.append(Task(name, show, before, List(outer, before)))
    return Task.fuse(*parts, key=key)


def run_in_order(plan: Any, given: Mapping[Hashable, Any] | None = None) -> dict[int, Any]:
    """Run the tasks by number, dropping each value once its consumers have run, and return those of the outputs.

    Fails if a value is still there that nobody needs, or is gone too early: it checks `uses` and `consumers`.
    """
    values: dict[int, Any] = {}
    left: dict[int, int] = {}
    for task in range(plan.size):
        if plan.is_given(task):
            assert given is not None
            values[task] = given[plan.key(task)]
        else:
            values[task] = plan.run(task, values)
        left[task] = plan.consumers(task)
        for parent, consumers in plan.uses(task):
            assert consumers == plan.consumers(parent)
            left[parent] -= 1
            if left[parent] == 0:
                del values[parent]
    assert set(values) == set(plan.outputs)
    return values

"""From whatever a Dask scheduler is given to tasks in depth-first order. Nothing runs here.

    dict, HighLevelGraph, Expr --merge--> one dict of nodes --trace--> Walk

`merge` leaves Dask's optimisers their say, but for Delayed's own, which only culls, and that in quadratic time.
`trace` is one iterative pass from the wanted keys: it culls, orders, finds last uses, cycles and missing keys.
"""

from collections.abc import Collection, Iterable, Mapping
from types import BuiltinMethodType, MethodWrapperType, ModuleType
from typing import Any, Final, NoReturn

from dask import config
from dask._expr import Expr, HLGExpr, _HLGExprSequence
from dask._task_spec import (
    Alias,
    DataNode,
    GraphNode,
    Task,
    TaskRef,
    _execute_subgraph,
    _MultiContainer,
    convert_legacy_task,
)
from dask.delayed import optimize as delayed_optimize
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from wukong.bytecode import WRITING_METHODS
from wukong.errors import GraphCycle, MissingKey, UnsupportedGraph
from wukong.executor.alone import Walk
from wukong.scheduler.annotations import Annotation
from wukong.scheduler.dask.annotated import Annotated, annotate
from wukong.scheduler.dask.retries import with_retries

Graph = dict[Any, Any]
Opened = dict[Any, tuple[Any, Collection[Any]]]


def merge(graph: Any) -> Graph:
    """Return the graph that a scheduler was given as one dictionary, not culled.

    Parameters
    ----------
    graph : Mapping, HighLevelGraph, Expr or anything with ``__dask_graph__``
        A dictionary is returned as it is, so the result must not be changed.
    """
    if type(graph) is dict:
        return graph
    if isinstance(graph, Expr):
        parts = graph.operands if isinstance(graph, _HLGExprSequence) else (graph,)
        if not any(map(_only_culls, parts)):
            # Dask optimises several graphs as one only through the whole expression.
            return dict(graph.__dask_graph__())
        merged: Graph = {}
        for part in parts:
            merged.update(_layers(part.hlg) if _only_culls(part) else part.__dask_graph__())
        return merged
    if not isinstance(graph, Mapping):
        return merge(graph.__dask_graph__())
    return _layers(graph) if isinstance(graph, HighLevelGraph) else dict(graph)


def _only_culls(part: Any) -> bool:
    if not isinstance(part, HLGExpr):
        return False
    optimizer = part.low_level_optimizer
    return optimizer is None or (optimizer is delayed_optimize and not config.get("optimization.fuse.delayed", False))


def _layers(graph: HighLevelGraph) -> Graph:
    merged: Graph = {}
    for layer in graph.layers.values():
        # The mapping itself is a dict, which merges ten times faster than the layer.
        tasks = layer.mapping if type(layer) is MaterializedLayer else layer
        retries = layer.annotations.get("retries") if layer.annotations else None
        merged.update(with_retries(tasks, retries) if retries else tasks)
    # Now all keys are there that a task may refer to.
    for layer in graph.layers.values():
        if layer.annotations:
            annotate(merged, layer, layer.annotations)
    return merged


def flatten(keys: Any) -> list[Any]:
    """Return the distinct keys of one key or of nested lists of keys, in the order in which they are asked for."""
    if type(keys) is not list:
        return [keys]
    found: dict[Any, None] = {}
    stack = [keys]
    while stack:
        keys = stack.pop()
        if isinstance(keys, list):
            stack.extend(reversed(keys))
        else:
            found[keys] = None
    return list(found)


def arrange(keys: Any, values: Mapping[Any, Any]) -> Any:
    """Return values in the structure of keys: of one key its value, of a list a tuple, as Dask's own schedulers do."""
    if isinstance(keys, list):
        return tuple([arrange(key, values) for key in keys])
    return values[keys]


def trace(graph: Graph, wanted: list[Any], given: Collection[Any] = ()) -> Walk:
    """Return the tasks that the wanted keys need, in depth-first order.

    An input that has inputs itself is visited before those that have none, which are thus made right before they are
    needed; otherwise inputs are visited in the order of arguments.

    Parameters
    ----------
    graph : dict
        From keys to Dask's nodes, legacy tasks or literals.
    wanted : list of keys
        Whose values are asked for.
    given : collection of keys, optional
        Keys whose values are known.

    Raises
    ------
    MissingKey, GraphCycle, UnsupportedGraph
    """
    keys: list[Any] = []
    nodes: list[Any] = []
    inputs: list[Collection[Any]] = []
    last: dict[Any, Any] = {}
    placed = set(given)
    opened: Opened = {}
    notes: dict[Any, Annotation] = {}
    stack = wanted[::-1]
    while stack:
        key = stack[-1]
        if key in placed:
            stack.pop()
            continue
        if key in opened:
            node, needs = opened[key]
            if not placed.issuperset(needs):
                _cycle(key, opened)
            del opened[key]
        else:
            try:
                node = graph[key]
            except KeyError:
                _missing(key, opened)
            if type(node) is Task:
                needs = node._dependencies
            else:
                node, needs = _node(key, node, graph, placed, opened, notes)
            if needs and not placed.issuperset(needs):
                opened[key] = node, needs
                if len(needs) == 1:
                    stack.extend(needs)
                else:
                    stack.extend(_visits(node, needs, placed, graph))
                continue
        stack.pop()
        placed.add(key)
        keys.append(key)
        nodes.append(node)
        inputs.append(needs)
        for read in needs:
            last[read] = key
    for key in wanted:
        last[key] = None
    return Walk(keys, nodes, inputs, last, wanted, notes)


_FINALISERS: Final = ("finalize-", "repartitiontofewer-")
# Arguments of these types are literals, or keys if the graph has them.
_PLAIN: Final = frozenset({str, int, float, bool})
# Arguments of these types are literals, even if they equal a key.
_INERT: Final = frozenset({type(None), complex, bytes})


def _node(
    key: Any, node: Any, graph: Graph, placed: set[Any], opened: Opened, notes: dict[Any, Annotation]
) -> tuple[Any, Collection[Any]]:
    """Return a node that `evaluate` takes, and its inputs, of anything but a plain Task; note what is said of it."""
    if type(node) is tuple and node and callable(node[0]):
        needs: dict[Any, None] = {}
        for arg in node[1:]:
            kind = type(arg)
            if kind in _PLAIN:
                if arg in graph or arg in placed:
                    needs[arg] = None
            elif kind is tuple and _is_key(arg, graph, placed):
                needs[arg] = None
            elif kind not in _INERT or arg in graph or arg in placed:
                break
        else:
            # Runs as it is: Dask's conversion would cost more than the whole walk.
            return node, tuple(needs)
    if not isinstance(node, GraphNode):
        node = convert_legacy_task(key, node, _MultiContainer(graph, placed))
        if not isinstance(node, GraphNode):
            return DataNode(key, node), ()
    if type(node) is Annotated:
        notes[key], node = node.note, node.bare
    if isinstance(node, Alias) and node.target == key:
        _missing(key, opened)
    if type(node).__module__.startswith("distributed.shuffle"):
        raise UnsupportedGraph(
            f"{key!r} belongs to a P2P shuffle or rechunk, which only dask.distributed can run; build the collection "
            'under dask.config.set({"dataframe.shuffle.method": "tasks", "array.rechunk.method": "tasks"})'
        )
    return node, node.dependencies


def _is_key(arg: tuple[Any, ...], graph: Graph, placed: set[Any]) -> bool:
    if not arg or callable(arg[0]):
        return False
    try:
        return arg in graph or arg in placed
    except TypeError:
        # It holds something that cannot be hashed.
        return False


def _visits(node: Any, needs: Collection[Any], placed: set[Any], graph: Graph) -> list[Any]:
    """Return the inputs that are still to be placed, the one to visit first at the end."""
    leaves: list[Any] = []
    inner: list[Any] = []
    for read in needs if type(node) is tuple else references(node):
        if read not in placed:
            found = graph.get(read)
            deep = found.dependencies if isinstance(found, GraphNode) else type(found) is tuple
            (inner if deep else leaves).append(read)
    leaves.reverse()
    inner.reverse()
    return leaves + inner


def references(node: Any) -> Collection[Any]:
    """Return the keys a node reads, in the order of its arguments; one may come several times."""
    if not isinstance(node, Task):
        leads: Collection[Any] = node.dependencies
        return leads
    found: list[Any] = []
    for arg in (*node.args, *node.kwargs.values()) if node.kwargs else node.args:
        if isinstance(arg, TaskRef):
            found.append(arg.key)
        elif isinstance(arg, GraphNode):
            found += references(arg)
    return found


def finalisers(walk: Walk) -> list[Any]:
    """Return the wanted keys whose tasks only put a whole result together, and that no other task reads."""
    names = [key for key in walk.wanted if _name(key).startswith(_FINALISERS)]
    if names:
        read = set().union(*walk.inputs)
        names = [key for key in names if key not in read]
    return names


def refuse_unshared(keys: Iterable[Any], disk: bool = False) -> None:
    """Refuse keys whose tasks hand on more than their values, where values are copied from task to task.

    Parameters
    ----------
    keys : iterable of keys
        Of the tasks that are to run.
    disk : bool
        Whether all tasks see the same disk. That will do for a dataframe's disk shuffle; not for a bag's, whose files
        are deleted with the first copy of what names them.

    Raises
    ------
    UnsupportedGraph
        If there is the key of a disk shuffle.
    """
    for key in keys:
        name = _name(key)
        if name.startswith("partd-"):
            raise UnsupportedGraph(
                f"{key!r} belongs to a bag's groupby through the local disk, whose tasks have to share memory; "
                'call groupby(..., shuffle="tasks"), or compute it without a store'
            )
        if name.startswith("zpartd-") and not disk:
            raise UnsupportedGraph(
                f"{key!r} belongs to a dataframe shuffle through the local disk, but tasks here do not share one; "
                'build the dataframe under dask.config.set({"dataframe.shuffle.method": "tasks"}), or keep its tasks '
                "in one process"
            )


def shares_memory(walk: Walk) -> bool:
    """Whether tasks hand on more than their values, so that all of them have to run in one process."""
    try:
        refuse_unshared(walk.keys)
        refuse_lost_writes(walk)
    except UnsupportedGraph:
        return True
    return False


def refuse_lost_writes(walk: Walk) -> None:
    """Refuse tasks that write into an object of the client's, where tasks are given copies of it.

    Raises
    ------
    UnsupportedGraph
        If ``Array.store`` is to write into a NumPy array, or a task is a method that changes an array or a container.
    """
    nodes: Graph = {}
    for key, node in zip(walk.keys, walk.nodes, strict=True):
        if "store-map-" in _name(key) and isinstance(node, Task):
            nodes = nodes or dict(zip(walk.keys, walk.nodes, strict=True))
            target = _target(node, nodes)
            if any(f"{cls.__module__}.{cls.__qualname__}" == "numpy.ndarray" for cls in type(target).__mro__):
                _lost(key, "writes into a NumPy array")
        function: Any = node[0] if type(node) is tuple else getattr(node, "func", None)
        if type(function) in _METHODS and function.__name__ in WRITING_METHODS:
            its = function.__self__
            if not isinstance(its, ModuleType):
                _lost(key, f"changes a {type(its).__name__}")


#: Methods of classes written in C.
_METHODS: Final = (BuiltinMethodType, MethodWrapperType)


def _lost(key: Any, does: str) -> NoReturn:
    raise UnsupportedGraph(
        f"{key!r} {does} of the client's, but in processes, or with a store, tasks run on copies, and what they write "
        "would be lost; return what it makes as a result, or store it into files (zarr, HDF5, .npy)"
    )


def _target(node: Task, nodes: Graph) -> Any:
    """Return what a task of ``Array.store`` writes into, its second argument."""
    scope = nodes
    if node.func is _execute_subgraph:
        inner, wanted, names, *given = node.args
        scope = {**inner, **dict(zip(names, given, strict=True))}
        node = inner[wanted]
    target = node.args[1] if len(node.args) > 1 else None
    for _ in range(len(scope)):
        if not isinstance(target, TaskRef | Alias):
            break
        target = scope.get(target.key if isinstance(target, TaskRef) else target.target)
    return target.value if isinstance(target, DataNode) else target


def _name(key: Any) -> str:
    """Return what Dask's collections put into a key to say what its task is for."""
    return str(key[0] if type(key) is tuple and key else key)


def _missing(key: Any, opened: Opened) -> NoReturn:
    for reader, (_, needs) in reversed(opened.items()):
        if key in needs:
            raise MissingKey(f"task {reader!r} needs {key!r}, which the graph does not have; add or rename it")
    raise MissingKey(f"{key!r} is asked for, but the graph does not have it; ask for a key of the graph")


def _cycle(key: Any, opened: Opened) -> NoReturn:
    # What is opened is one path, each key needing the next one.
    path = list(opened)
    cycle = [repr(step) for step in [*path[path.index(key) :], key]]
    if len(cycle) > 12:
        cycle[6:-5] = [f"({len(cycle) - 11} more)"]
    raise GraphCycle(
        "the graph has a cycle, so none of its tasks can run first: " + " needs ".join(cycle) + "; break it"
    )

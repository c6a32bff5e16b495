"""Lowering: Dask's nodes become programs and operand rows of a plan. One of the few modules that know Dask's internals.

    Task(k, add, TaskRef(x), 1)           call add on (x, literal 1)
    Task(k, f, List(TaskRef(x), 2))       make_list on slots 0, 1; f on its result
    Task(k, _execute_subgraph, {...}, ..) the inner tasks, one after the other, as calls of one program
    Alias(k, x)                           nothing: whoever refers to k refers to x
    DataNode(k, v)                        nothing: v is a literal of its consumers

What is not needed for the outputs is never looked at. The graph may be of any depth; only the nesting of one task's own
arguments recurses, as it does in Dask.
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
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

from wukong.errors import GraphCycle
from wukong.plan.builder import LONGEST_CHAIN, PlanBuilder
from wukong.plan.columns import ONCE
from wukong.plan.program import make_dict, make_list, make_set, make_tuple, pass_on
from wukong.plan.reading import Plan
from wukong.scheduler.tries import is_once

_CONSTRUCTORS: Final[dict[type, Any]] = {List: make_list, Tuple: make_tuple, Set: make_set, Dict: make_dict}
_LACKING: Final = object()

# What an argument is, by its type.
_LITERAL, _REF, _NODE = 0, 1, 2

#: Names that calls of a program may refer to: results of inner tasks and operands, as in `wukong.plan.program.Call`.
Scope = dict[Hashable, int]


def lower(
    graph: Mapping[Hashable, Any],
    outputs: Sequence[Hashable],
    given: Mapping[Hashable, Any] | None = None,
    fuse: bool = True,
    once: Collection[Hashable] = (),
) -> Plan:
    """Compile a graph of Dask's nodes into a plan.

    Parameters
    ----------
    graph : mapping of key to node
        `GraphNode` objects, legacy tuples, or data.
    outputs : sequence of keys
        What is requested; `plan.requested` has the task of each.
    given : mapping of key to value, optional
        Tasks that are computed already. They become given leaves of the plan (`plan.given`), whose values are supplied
        at launch; only the keys are used here.
    fuse : bool
        Whether linear chains become one task each.
    once : collection of keys
        Tasks that may never run twice, beside those whose functions are marked so.

    Returns
    -------
    Plan

    Raises
    ------
    GraphCycle
        If tasks, or aliases, need each other.
    MissingKey
        If a needed key is neither in the graph nor given.
    """
    lowering = _Lowering(graph, {} if given is None else given)
    requested = [lowering.output(key) for key in outputs]
    lowering.walk()
    plan = lowering.builder.build(requested, LONGEST_CHAIN if fuse else 1)
    _mark_once(plan, once)
    return plan


def _mark_once(plan: Plan, once: Collection[Hashable]) -> None:
    columns = plan.columns
    functions = {number for number, function in enumerate(columns.functions) if is_once(function)}
    programs = {
        number
        for number, program in enumerate(columns.programs if functions else ())
        if any(call[0] in functions for call in program.calls)
    }
    if once or programs:
        for task, (key, program) in enumerate(zip(columns.keys, columns.program, strict=True)):
            if key in once or program in programs:
                columns.flags[task] |= ONCE


class _Lowering:
    """The state of one lowering: which operand stands for each key, and which tasks are still to be lowered."""

    def __init__(self, graph: Mapping[Hashable, Any], given: Mapping[Hashable, Any]) -> None:
        self.graph = graph
        self.given = given
        self.known = _Known(graph, given)
        self.builder = PlanBuilder()
        self.operands: dict[Hashable, int] = {}
        self.pending: list[tuple[int, Any]] = []
        self._kinds: dict[type, int] = {TaskRef: _REF}

    def output(self, key: Hashable) -> int:
        """Return the task that computes `key`; data gets a task that passes it on."""
        operand = self.refer(key)
        if operand >= 0:
            return operand
        task = self.builder.task(key)
        self.builder.define(task, self.builder.program((), 1), [operand])
        self.operands[key] = task
        return task

    def refer(self, key: Hashable) -> int:
        """Return the operand that stands for `key`: a task, or ``~`` a literal."""
        operand = self.operands.get(key)
        if operand is not None:
            return operand
        trail: dict[Hashable, None] = {}
        node = self.node(key)
        while isinstance(node, Alias) and node.target != key and key not in self.given:
            if key in trail:
                cycle = list(trail)
                walk = " needs ".join(map(repr, [*cycle[cycle.index(key) :], key]))
                raise GraphCycle(f"the graph has a cycle of aliases: {walk}. Remove one of them.")
            trail[key] = None
            key = node.target
            node = self.node(key)
        operand = self.operands.get(key)
        if operand is None:
            operand = self.operands[key] = self._stand_in(key, node)
        for alias in trail:
            self.operands[alias] = operand
        return operand

    def _stand_in(self, key: Hashable, node: Any) -> int:
        if isinstance(node, DataNode):
            return self.builder.literal(node.value)
        task = self.builder.task(key)
        if key in self.given:
            self.builder.give(task)
        elif node is not _LACKING and not isinstance(node, Alias):
            self.pending.append((task, node))
        return task

    def node(self, key: Hashable) -> Any:
        """Return the node of `key` as a `GraphNode`, or `_LACKING`."""
        node = self.graph.get(key, _LACKING)
        if node is _LACKING or isinstance(node, GraphNode):
            return node
        node = convert_legacy_task(key, node, self.known)
        return node if isinstance(node, GraphNode) else DataNode(key, node)

    def kind(self, cls: type) -> int:
        """Return whether objects of this type are nodes, references or data."""
        kind = self._kinds.get(cls)
        if kind is None:
            if issubclass(cls, TaskRef) or getattr(cls, "__dask_future__", False):
                kind = _REF
            else:
                kind = _NODE if issubclass(cls, GraphNode) else _LITERAL
            self._kinds[cls] = kind
        return kind

    def walk(self) -> None:
        """Lower every task that is referred to, until there is none left."""
        pending, operands, kinds = self.pending, self.operands, self._kinds
        builder = self.builder
        call, literal, define = builder.call, builder.literal, builder.define
        while pending:
            task, node = pending.pop()
            if type(node) is Task and not node.kwargs and node.func is not _execute_subgraph:
                row = []
                for a in node.args:
                    kind = kinds.get(type(a))
                    if kind is None:
                        kind = self.kind(type(a))
                    if kind == _REF:
                        operand = operands.get(a.key)
                        row.append(self.refer(a.key) if operand is None else operand)
                    elif kind == _LITERAL:
                        row.append(literal(a))
                    else:
                        break
                else:
                    define(task, call(node.func, len(row)), row)
                    continue
            code = _Code(self)
            code.task(node)
            define(task, builder.program(tuple(code.calls), len(code.row)), code.row)


class _Known:
    """The keys that a legacy task may refer to."""

    def __init__(self, graph: Mapping[Hashable, Any], given: Mapping[Hashable, Any]) -> None:
        self.graph, self.given = graph, given

    def __contains__(self, key: Hashable) -> bool:
        return key in self.graph or key in self.given


class _Code:
    """The program of one task while it is written: its calls, and the operand row that goes with it."""

    def __init__(self, lowering: _Lowering) -> None:
        self.lowering = lowering
        self.calls: list[Any] = []
        self.row: list[int] = []

    def task(self, node: Any) -> None:
        """Write the whole program of a task, so that its last call gives the result."""
        result = self.value(node, {})
        if result >= 0 and not self.calls:
            self.row = [self.row[result]]
        elif result != ~(len(self.calls) - 1):
            self.call(pass_on, (result,))

    def slot(self, operand: int) -> int:
        """Return a new slot of the row, filled with `operand`: rows may repeat, so that programs do not differ."""
        self.row.append(operand)
        return len(self.row) - 1

    def argument(self, a: Any, scope: Scope) -> int:
        """Write what an argument needs, and return where its value is."""
        kind = self.lowering.kind(type(a))
        if kind == _LITERAL:
            return self.slot(self.lowering.builder.literal(a))
        return self.name(a.key, scope) if kind == _REF else self.value(a, scope)

    def name(self, key: Hashable, scope: Scope) -> int:
        """Return where the value of `key` is, which is an operand if no inner task makes it."""
        ref = scope.get(key)
        return self.slot(self.lowering.refer(key)) if ref is None else ref

    def value(self, node: Any, scope: Scope) -> int:
        """Write the calls that compute a node, and return where its value is."""
        if isinstance(node, Alias):
            return self.name(node.target, scope)
        if isinstance(node, DataNode):
            return self.slot(self.lowering.builder.literal(node.value))
        if not isinstance(node, Task) or type(node).__call__ is not Task.__call__:
            names = tuple(node.dependencies)
            refs = [self.slot(self.lowering.builder.literal(x)) for x in (node, names)]
            return self.call(_call_node, (*refs, *(self.name(key, scope) for key in names)))
        if node.func is _execute_subgraph:
            return self.subgraph(node, scope)
        refs = [self.argument(a, scope) for a in node.args]
        constructor = _CONSTRUCTORS.get(type(node))
        if constructor is not None:
            return self.call(constructor, tuple(refs))
        refs.extend(self.argument(a, scope) for a in node.kwargs.values())
        return self.call(node.func, tuple(refs), tuple(node.kwargs))

    def call(self, function: Any, refs: tuple[int, ...], kwnames: tuple[str, ...] = ()) -> int:
        """Write one call, and return where its result is."""
        self.calls.append((self.lowering.builder.function(function), refs, kwnames, 0))
        return ~(len(self.calls) - 1)

    def subgraph(self, node: Any, scope: Scope) -> int:
        """Write the inner tasks of a fused task, in the order in which they need each other."""
        inner, result, names, *arguments = node.args
        bound: Scope = {key: self.argument(a, scope) for key, a in zip(names, arguments, strict=False)}
        opened: set[Hashable] = set()
        stack = [result]
        while stack:
            key = stack[-1]
            if key in bound or key not in inner:
                stack.pop()
                continue
            needs = [k for k in inner[key].dependencies if k not in bound and k in inner]
            if not needs:
                bound[key] = self.value(inner[key], bound)
                stack.pop()
            elif key in opened:
                raise GraphCycle(f"the fused task {node.key!r} has a cycle through {key!r}. Remove a dependency.")
            else:
                opened.add(key)
                stack.extend(needs)
        return self.name(result, bound)


def _call_node(node: Any, names: tuple[Hashable, ...], *values: Any) -> Any:
    """Run a node of a kind that is not known here."""
    return node(dict(zip(names, values, strict=True)))

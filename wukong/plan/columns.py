"""Tasks as columns of integers. What may be asked of a plan is in `reading`; how it is built, cut or sent, elsewhere.

Tasks are numbered 0..size-1 in depth-first order along the critical path, inputs before their consumers, so running
them by number is right and keeps few values alive. One-to-many columns are stored end to end, with the places where
each task's part starts:

    input_start   0 0 0 2 4        task 2 has the inputs 0, 1; task 3 has 2, 0
    inputs        0 1 2 0

A task costs about 60 bytes beside its key. `Columns` holds any contiguous range of tasks: the whole of a plan, or one
segment of it. A range can be read without its neighbours, so what is needed of those (in-degrees of children, consumers
of inputs) stands beside the edge.
"""

from array import array
from collections.abc import Hashable, Sequence
from typing import Any, Final, TypeAlias

from wukong.plan.program import Program

Ints: TypeAlias = "array[int]"

# Bits of `Columns.flags`.
OUTPUT: Final = 1
GIVEN: Final = 2
ONCE: Final = 4


class Columns:
    """What is known of `count` tasks with consecutive numbers; here task ``i`` is the i-th of them.

    Attributes
    ----------
    keys : list of hashable, length count
        The original key; of a fused task, that of its last member.
    members : dict of int to tuple of hashable
        Original keys of each fused task, first to last.
    program : array of int32, length count
        Which program, an index into the plan's table.
    row_start, rows : array of int32
        Operand rows: ``r >= 0`` is a task, ``r < 0`` is literal ``~r``.
    input_start, inputs, consumers : array of int32
        Distinct inputs in order of first use, and how many consumers each has.
    child_start, children, indegrees : array of int32
        Distinct dependents in ascending order, and how many distinct inputs each has.
    heights : array of int32, length count
        Tasks on the longest path to an output, itself not counted.
    flags : bytearray, length count
        `OUTPUT`, `GIVEN` and `ONCE`.
    programs : list of Program
    functions : list of callable
    literals : list of object
        The tables that `program`, calls and `rows` point into.
    kinds : sequence of int, length len(programs)
        A number for each program that holds beyond this range.
    passed : dict of int to tuple of int
        For programs that are given functions to call: these literals, as operands. Only of a plan that is whole.
    pending : dict of int to str
        Literals that are still to be fetched, by their content's digest.
    """

    __slots__ = (
        "child_start",
        "children",
        "consumers",
        "flags",
        "functions",
        "heights",
        "indegrees",
        "input_start",
        "inputs",
        "keys",
        "kinds",
        "literals",
        "members",
        "passed",
        "pending",
        "program",
        "programs",
        "row_start",
        "rows",
    )

    #: Those of the attributes that are arrays, in the order they are sent.
    ARRAYS: Final = (
        "program",
        "row_start",
        "rows",
        "input_start",
        "inputs",
        "consumers",
        "child_start",
        "children",
        "indegrees",
        "heights",
    )

    def __init__(self) -> None:
        self.keys: list[Hashable] = []
        self.members: dict[int, tuple[Hashable, ...]] = {}
        self.program: Ints = array("i")
        self.row_start: Ints = array("i", (0,))
        self.rows: Ints = array("i")
        self.input_start: Ints = array("i", (0,))
        self.inputs: Ints = array("i")
        self.consumers: Ints = array("i")
        self.child_start: Ints = array("i", (0,))
        self.children: Ints = array("i")
        self.indegrees: Ints = array("i")
        self.heights: Ints = array("i")
        self.flags = bytearray()
        self.programs: list[Program] = []
        self.functions: list[Any] = []
        self.literals: list[Any] = []
        self.kinds: Sequence[int] = ()
        self.passed: dict[int, tuple[int, ...]] = {}
        self.pending: dict[int, str] = {}

    def row(self, i: int) -> Ints:
        """Return the operand row of task `i`."""
        return self.rows[self.row_start[i] : self.row_start[i + 1]]

    def inputs_of(self, i: int) -> tuple[int, ...]:
        """Return the distinct inputs of task `i`."""
        return tuple(self.inputs[self.input_start[i] : self.input_start[i + 1]])

    def uses_of(self, i: int) -> list[tuple[int, int]]:
        """Return the inputs of task `i`, each with its number of consumers."""
        start, stop = self.input_start[i], self.input_start[i + 1]
        return [(self.inputs[at], self.consumers[at]) for at in range(start, stop)]

    def children_of(self, i: int) -> tuple[int, ...]:
        """Return the distinct children of task `i`."""
        return tuple(self.children[self.child_start[i] : self.child_start[i + 1]])

    def edges_of(self, i: int) -> list[tuple[int, int]]:
        """Return the children of task `i`, each with its in-degree."""
        start, stop = self.child_start[i], self.child_start[i + 1]
        return [(self.children[at], self.indegrees[at]) for at in range(start, stop)]

    def members_of(self, i: int) -> tuple[Hashable, ...]:
        """Return the original keys of task `i`, first to last."""
        members = self.members.get(i)
        return (self.keys[i],) if members is None else members

    def indegree_of(self, i: int) -> int:
        """Return the number of distinct inputs of task `i`."""
        return self.input_start[i + 1] - self.input_start[i]

    def consumers_of(self, i: int) -> int:
        """Return the number of children of task `i`, and one more if it is an output."""
        return self.child_start[i + 1] - self.child_start[i] + (self.flags[i] & OUTPUT)

    def leaves(self) -> list[int]:
        """Return the tasks that run without inputs."""
        starts, flags = self.input_start, self.flags
        return [i for i in range(len(flags)) if starts[i] == starts[i + 1] and not flags[i] & GIVEN]

    def given(self) -> list[int]:
        """Return the given tasks."""
        return [i for i, flag in enumerate(self.flags) if flag & GIVEN]

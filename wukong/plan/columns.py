"""The plan as columns of integers: what may be asked of it, task by task. Not how it is built, cut or sent.

Tasks are numbered 0..size-1 in depth-first order along the critical path, inputs before their consumers, so running
them by number is right and keeps few values alive. One-to-many columns are stored end to end, with the places where
each task's part starts:

    input_start   0 0 0 2 4        task 2 has the inputs 0, 1; task 3 has 2, 0
    inputs        0 1 2 0

A task costs about 60 bytes beside its key. `Columns` serves any contiguous range of tasks; `Plan` is the whole range.
"""

from array import array
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from wukong.errors import MissingExtra
from wukong.plan.program import Program, execute

if TYPE_CHECKING:
    import networkx

Ints: TypeAlias = "array[int]"

# Bits of `Columns.flags`.
OUTPUT: Final = 1
GIVEN: Final = 2


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
        `OUTPUT` and `GIVEN`.
    """

    __slots__ = (
        "child_start",
        "children",
        "consumers",
        "flags",
        "heights",
        "indegrees",
        "input_start",
        "inputs",
        "keys",
        "members",
        "program",
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

    def row(self, i: int) -> Ints:
        """Return the operand row of task `i`."""
        return self.rows[self.row_start[i] : self.row_start[i + 1]]

    def inputs_of(self, i: int) -> tuple[int, ...]:
        """Return the distinct inputs of task `i`."""
        return tuple(self.inputs[self.input_start[i] : self.input_start[i + 1]])

    def uses_of(self, i: int) -> list[tuple[int, int]]:
        """Return the inputs of task `i`, each with its number of consumers."""
        part = slice(self.input_start[i], self.input_start[i + 1])
        return list(zip(self.inputs[part], self.consumers[part], strict=True))

    def children_of(self, i: int) -> tuple[int, ...]:
        """Return the distinct children of task `i`."""
        return tuple(self.children[self.child_start[i] : self.child_start[i + 1]])

    def edges_of(self, i: int) -> list[tuple[int, int]]:
        """Return the children of task `i`, each with its in-degree."""
        part = slice(self.child_start[i], self.child_start[i + 1])
        return list(zip(self.children[part], self.indegrees[part], strict=True))

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


class Plan:
    """A compiled graph, whole and in memory. `wukong.plan.builder.PlanBuilder` makes it.

    Attributes
    ----------
    size : int
        Number of tasks.
    outputs : list of int
        The distinct requested tasks, in the order they were asked for.
    requested : list of int
        The task of each request, repeats included: aliases of one task share it.
    leaves : list of int
        Tasks that run without inputs, ascending.
    given : list of int
        Tasks whose values are known already and are supplied by whoever launches the plan, ascending.
    columns : Columns
        All of its tasks.
    programs : list of Program
    functions : list of callable
    literals : list of object
        The tables that programs, calls and operand rows point into.
    """

    __slots__ = ("columns", "functions", "given", "leaves", "literals", "outputs", "programs", "requested", "size")

    def __init__(
        self,
        columns: Columns,
        requested: Sequence[int],
        programs: list[Program],
        functions: list[Any],
        literals: list[Any],
    ) -> None:
        self.columns = columns
        self.size = len(columns.keys)
        self.requested = list(requested)
        self.outputs = list(dict.fromkeys(requested))
        starts, flags = columns.input_start, columns.flags
        self.leaves = [t for t in range(self.size) if starts[t] == starts[t + 1] and not flags[t] & GIVEN]
        self.given = [t for t in range(self.size) if flags[t] & GIVEN]
        self.programs = programs
        self.functions = functions
        self.literals = literals

    def __repr__(self) -> str:
        return f"<Plan of {self.size} tasks, {len(self.leaves)} leaves, {len(self.programs)} programs>"

    def loaded(self, task: int) -> bool:  # noqa: ARG002 - a plan in memory is always loaded; a view of one is not
        """Whether `task` can be asked about without I/O."""
        return True

    def load(self, tasks: Sequence[int]) -> None:
        """Make sure that these tasks are loaded."""

    def key(self, task: int) -> Hashable:
        """Return the original key of `task` (of a fused one, that of its last member)."""
        return self.columns.keys[task]

    def members(self, task: int) -> tuple[Hashable, ...]:
        """Return the original keys that `task` stands for, first to last."""
        return self.columns.members_of(task)

    def inputs(self, task: int) -> tuple[int, ...]:
        """Return the distinct tasks whose values `task` needs."""
        return self.columns.inputs_of(task)

    def uses(self, task: int) -> list[tuple[int, int]]:
        """Return (input, number of the input's consumers) for each distinct input."""
        return self.columns.uses_of(task)

    def indegree(self, task: int) -> int:
        """Return the number of distinct inputs."""
        return self.columns.indegree_of(task)

    def children(self, task: int) -> tuple[int, ...]:
        """Return the distinct tasks that need the value of `task`, ascending."""
        return self.columns.children_of(task)

    def edges(self, task: int) -> list[tuple[int, int]]:
        """Return (child, in-degree of the child) for each distinct child."""
        return self.columns.edges_of(task)

    def consumers(self, task: int) -> int:
        """Return the number of children, and one more if `task` is an output."""
        return self.columns.consumers_of(task)

    def is_output(self, task: int) -> bool:
        """Whether `task` was requested."""
        return bool(self.columns.flags[task] & OUTPUT)

    def is_given(self, task: int) -> bool:
        """Whether the value of `task` is supplied and nothing is to be run for it."""
        return bool(self.columns.flags[task] & GIVEN)

    def height(self, task: int) -> int:
        """Return the number of tasks that follow on the longest path to an output."""
        return self.columns.heights[task]

    def kind(self, task: int) -> int:
        """Return a small number that tasks with the same program share."""
        return self.columns.program[task]

    def program(self, task: int) -> Program:
        """Return what `task` does."""
        return self.programs[self.columns.program[task]]

    def operands(self, task: int) -> tuple[int, ...]:
        """Return the operand row: ``r >= 0`` is a task, ``r < 0`` is literal ``~r``."""
        return tuple(self.columns.row(task))

    def run(self, task: int, values: Mapping[int, Any]) -> Any:
        """Run `task` on the values of its inputs and return its result.

        Parameters
        ----------
        task : int
            Not a given one.
        values : mapping of int to object
            Values of at least the tasks in `inputs(task)`.

        Raises
        ------
        BaseException
            What the task raises, as it is; see `wukong.plan.program.failed_member`.
        """
        columns, literals = self.columns, self.literals
        start, stop = columns.row_start[task], columns.row_start[task + 1]
        operands = [values[r] if r >= 0 else literals[~r] for r in columns.rows[start:stop]]
        return execute(self.programs[columns.program[task]], self.functions, operands)

    def to_networkx(self) -> "networkx.DiGraph[int]":
        """Return the plan as a `networkx.DiGraph` of task numbers, for people and for tests.

        Nodes carry ``key``, ``members``, ``height``, ``output`` and ``given``; edges run from input to consumer.

        Raises
        ------
        MissingExtra
            If networkx is not installed.
        """
        try:
            import networkx
        except ImportError as error:
            raise MissingExtra("Plan.to_networkx() needs networkx: pip install 'wukong[plots]'.") from error
        graph: networkx.DiGraph[int] = networkx.DiGraph()
        for task in range(self.size):
            graph.add_node(
                task,
                key=self.key(task),
                members=self.members(task),
                height=self.height(task),
                output=self.is_output(task),
                given=self.is_given(task),
            )
            graph.add_edges_from((task, child) for child in self.children(task))
        return graph

"""What may be asked of a plan, task by task, wherever its columns are. How it is built, cut or sent is elsewhere.

`Plan` has all of it in memory; `wukong.plan.view.PlanView` answers the same from segments that it loads as it goes.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wukong.errors import MissingExtra
from wukong.plan.columns import GIVEN, ONCE, OUTPUT, Columns
from wukong.plan.program import Program, execute

if TYPE_CHECKING:
    import networkx


class Reading(ABC):
    """The questions a plan answers.

    Attributes
    ----------
    size : int
        Number of tasks; they are numbered from 0, inputs before their consumers.
    requested : list of int
        The task of each request, repeats included: aliases of one task share it.
    outputs : list of int
        The distinct requested tasks, in the order they were asked for.
    """

    __slots__ = ("outputs", "requested", "size")

    def __init__(self, size: int, requested: Iterable[int]) -> None:
        self.size = size
        self.requested = list(requested)
        self.outputs = list(dict.fromkeys(self.requested))

    @property
    def tasks(self) -> range:
        """All tasks."""
        return range(self.size)

    @abstractmethod
    def at(self, task: int) -> tuple[Columns, int]:
        """Return the columns that hold `task`, and its place in them."""

    @abstractmethod
    def loaded(self, task: int) -> bool:
        """Whether `task` can be asked about without I/O."""

    @abstractmethod
    def load(self, tasks: Iterable[int]) -> None:
        """Make sure that these tasks are loaded, in one round trip."""

    @abstractmethod
    def fetch_literals(self, columns: Columns, row: Sequence[int]) -> None:
        """Fetch those literals of an operand row that are still `columns.pending`."""

    def key(self, task: int) -> Hashable:
        """Return the original key of `task` (of a fused one, that of its last member)."""
        columns, i = self.at(task)
        return columns.keys[i]

    def members(self, task: int) -> tuple[Hashable, ...]:
        """Return the original keys that `task` stands for, first to last."""
        columns, i = self.at(task)
        return columns.members_of(i)

    def inputs(self, task: int) -> tuple[int, ...]:
        """Return the distinct tasks whose values `task` needs."""
        columns, i = self.at(task)
        return columns.inputs_of(i)

    def uses(self, task: int) -> list[tuple[int, int]]:
        """Return (input, number of the input's consumers) for each distinct input."""
        columns, i = self.at(task)
        return columns.uses_of(i)

    def indegree(self, task: int) -> int:
        """Return the number of distinct inputs."""
        columns, i = self.at(task)
        return columns.indegree_of(i)

    def children(self, task: int) -> tuple[int, ...]:
        """Return the distinct tasks that need the value of `task`, ascending."""
        columns, i = self.at(task)
        return columns.children_of(i)

    def edges(self, task: int) -> list[tuple[int, int]]:
        """Return (child, in-degree of the child) for each distinct child."""
        columns, i = self.at(task)
        return columns.edges_of(i)

    def consumers(self, task: int) -> int:
        """Return the number of children, and one more if `task` is an output."""
        columns, i = self.at(task)
        return columns.consumers_of(i)

    def is_output(self, task: int) -> bool:
        """Whether `task` was requested."""
        columns, i = self.at(task)
        return bool(columns.flags[i] & OUTPUT)

    def once(self, task: int) -> bool:
        """Whether `task` may be started only once, so that it is lost if its executor does not come back."""
        columns, i = self.at(task)
        return bool(columns.flags[i] & ONCE)

    def is_given(self, task: int) -> bool:
        """Whether the value of `task` is supplied and nothing is to be run for it."""
        columns, i = self.at(task)
        return bool(columns.flags[i] & GIVEN)

    def height(self, task: int) -> int:
        """Return the number of tasks that follow on the longest path to an output."""
        columns, i = self.at(task)
        return columns.heights[i]

    def kind(self, task: int) -> int:
        """Return a small number that tasks of this plan with the same program share."""
        columns, i = self.at(task)
        return columns.kinds[columns.program[i]]

    def program(self, task: int) -> Program:
        """Return what `task` does."""
        columns, i = self.at(task)
        return columns.programs[columns.program[i]]

    def operands(self, task: int) -> tuple[int, ...]:
        """Return the operand row: ``r >= 0`` is a task, ``r < 0`` is literal ``~r`` of the columns that hold `task`."""
        columns, i = self.at(task)
        return tuple(columns.row(i))

    def operand_values(self, task: int, values: Mapping[int, Any]) -> list[Any]:
        """Return the operand row of `task` with the values of tasks and literals filled in."""
        columns, i = self.at(task)
        row = columns.row(i)
        if columns.pending:
            self.fetch_literals(columns, row)
        literals = columns.literals
        return [values[r] if r >= 0 else literals[~r] for r in row]

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
        columns, i = self.at(task)
        return execute(columns.programs[columns.program[i]], columns.functions, self.operand_values(task, values))

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


class Plan(Reading):
    """A compiled graph, whole and in memory. `wukong.plan.builder.PlanBuilder` makes it.

    Attributes
    ----------
    columns : Columns
        All of its tasks.
    leaves : list of int
        Tasks that run without inputs, ascending.
    given : list of int
        Tasks whose values are known already and are supplied by whoever launches the plan, ascending.
    """

    __slots__ = ("columns", "given", "leaves")

    def __init__(self, columns: Columns, requested: Iterable[int]) -> None:
        super().__init__(len(columns.keys), requested)
        self.columns = columns
        self.leaves = columns.leaves()
        self.given = columns.given()

    def __repr__(self) -> str:
        return f"<Plan of {self.size} tasks, {len(self.leaves)} leaves, {len(self.columns.programs)} programs>"

    def at(self, task: int) -> tuple[Columns, int]:
        """Return the columns that hold `task`, and its place in them."""
        return self.columns, task

    def loaded(self, task: int) -> bool:  # noqa: ARG002
        """Return True: all of it is in memory."""
        return True

    def load(self, tasks: Iterable[int]) -> None:
        """Do nothing: all of it is in memory."""

    def fetch_literals(self, columns: Columns, row: Sequence[int]) -> None:
        """Do nothing: all of it is in memory."""

"""Building a plan: tables are interned while tasks are defined, then culled, fused, ordered and laid out as columns.

What Dask's nodes mean is not known here (see `wukong.scheduler.dask.lower`). Time and memory are linear in tasks and
edges; nothing recurses.
"""

from array import array
from collections.abc import Callable, Hashable, Sequence
from types import MethodType
from typing import Any, Final

from wukong.errors import GraphCycle, MissingKey
from wukong.plan.columns import GIVEN, OUTPUT, Columns, Ints
from wukong.plan.literals import identity
from wukong.plan.order import Cycle, depth_first, needed, release_early
from wukong.plan.program import PASS, Call, Program, compose
from wukong.plan.reading import Plan

#: Most tasks that one fused task stands for: it is lost, and run again, as a whole.
LONGEST_CHAIN: Final = 128

# Instead of a program, while building.
_UNDEFINED, _GIVEN = -1, -2
#: Keys of a cycle that an error names.
_SHOWN = 12


class PlanBuilder:
    """Collects tasks and makes a `Plan` of those that are needed.

    Tasks may be referred to before they are defined. The numbers given out here are the builder's own: a plan numbers
    its tasks anew.

    Examples
    --------
    >>> from operator import add, neg
    >>> builder = PlanBuilder()
    >>> a, b = builder.task("a"), builder.task("b")
    >>> builder.define(b, builder.call(neg, 1), [a])
    >>> builder.define(a, builder.call(add, 2), [builder.literal(1), builder.literal(2)])
    >>> plan = builder.build([b])
    >>> plan.size, plan.members(0), plan.run(0, {})
    (1, ('a', 'b'), -3)
    """

    def __init__(self) -> None:
        self.programs: list[Program] = []
        self.functions: list[Any] = []
        self.literals: list[Any] = []
        self._program_of: dict[tuple[tuple[Call, ...], int], int] = {}
        self._function_of: dict[Any, int] = {}
        self._literal_of: dict[Any, int] = {}
        self._call_of: dict[tuple[int, int], int] = {}
        self._calling_of: dict[tuple[int, tuple[int, ...]], int] = {}
        self._keys: list[Hashable] = []
        self._program: Ints = array("i")
        self._start: Ints = array("i")
        self._stop: Ints = array("i")
        self._rows: Ints = array("i")

    # --- tables -------------------------------------------------------------------------------------------------------

    def function(self, function: Callable[..., Any]) -> int:
        """Return the number of a function. Functions are told apart by identity: their ``==`` may be anything."""
        name: Any = id(function)
        if type(function) is MethodType:  # made anew by each access
            name = id(function.__self__), id(function.__func__)
        number = self._function_of.get(name)
        if number is None:
            number = self._function_of[name] = len(self.functions)
            self.functions.append(function)
        return number

    def literal(self, value: Any) -> int:
        """Return the operand that stands for a literal: ``~`` its number."""
        name = identity(value)
        number = self._literal_of.get(name)
        if number is None:
            number = self._literal_of[name] = len(self.literals)
            self.literals.append(value)
        return ~number

    def program(self, calls: tuple[Call, ...], slots: int) -> int:
        """Return the number of a program; `calls` may hold plain tuples."""
        number = self._program_of.get((calls, slots))
        if number is None:
            made = Program([Call(*call) for call in calls], slots) if calls else PASS
            number = self._program_of[made.calls, slots] = len(self.programs)
            self.programs.append(made)
        return number

    def call(self, function: Callable[..., Any], slots: int) -> int:
        """Return the number of the program that calls `function` on its `slots` operands in order."""
        func = self.function(function)
        number = self._call_of.get((func, slots))
        if number is None:
            number = self.program((Call(func, tuple(range(slots))),), slots)
            self._call_of[func, slots] = number
        return number

    # --- tasks --------------------------------------------------------------------------------------------------------

    def task(self, key: Hashable) -> int:
        """Return the operand that stands for a task still to be defined. Each call makes another task."""
        task = len(self._keys)
        self._keys.append(key)
        self._program.append(_UNDEFINED)
        self._start.append(0)
        self._stop.append(0)
        return task

    def define(self, task: int, program: int, operands: Sequence[int]) -> None:
        """Say what a task does, and on which operands."""
        self._program[task] = program
        self._start[task] = len(self._rows)
        self._rows.extend(operands)
        self._stop[task] = len(self._rows)

    def give(self, task: int) -> None:
        """Say that the value of a task is known and will be supplied."""
        self._program[task] = _GIVEN

    # --- plan ---------------------------------------------------------------------------------------------------------

    def build(self, requested: Sequence[int], longest_chain: int = LONGEST_CHAIN) -> Plan:
        """Make the plan that computes `requested`.

        A task is fused with its only input if it is that input's only consumer and the input is not requested.

        Parameters
        ----------
        requested : sequence of int
            Tasks, repeats allowed.
        longest_chain : int
            Most tasks that are fused into one; 1 switches fusing off.

        Raises
        ------
        GraphCycle
            If tasks need each other.
        MissingKey
            If a needed task was never defined.
        """
        size, program, rows = len(self._keys), self._program, self._rows
        start, stop = self._start, self._stop
        try:
            order = needed(requested, size, lambda t: rows[start[t] : stop[t]])
        except Cycle as cycle:
            raise self._cycle(cycle.tasks) from None
        output = bytearray(size)
        for task in requested:
            output[task] = OUTPUT

        # Distinct inputs, end to end in topological order; how often each task is used; weights of the longest paths.
        inputs: Ints = array("i")
        first, last = array("i", bytes(4 * size)), array("i", bytes(4 * size))
        used, depth = array("i", bytes(4 * size)), array("i", bytes(4 * size))
        for task in order:
            if program[task] == _UNDEFINED:
                raise self._missing(task, order)
            first[task] = len(inputs)
            row: Any = rows[start[task] : stop[task]]
            if len(row) > 1:
                row = dict.fromkeys(row)
            longest = 0
            for r in row:
                if r >= 0:
                    inputs.append(r)
                    used[r] += 1
                    if depth[r] > longest:
                        longest = depth[r]
            last[task] = len(inputs)
            depth[task] = longest + 1

        # Chains: `before` is the previous member, `head` the first; the last member stands for the chain.
        before: Ints = array("i", b"\xff" * (4 * size))
        head = array("i", range(size))
        length = array("i", (1,)) * size
        if longest_chain > 1:
            for task in order:
                if last[task] - first[task] == 1:
                    p = inputs[first[task]]
                    if used[p] == 1 and length[p] < longest_chain and not output[p] and program[p] != _GIVEN:
                        before[task], head[task], length[task] = p, head[p], length[p] + 1

        def below(task: int) -> Ints:
            return inputs[first[head[task]] : last[head[task]]]

        order = release_early(depth_first(requested, size, below, depth), size, below, output)
        return self._lay_out(order, below, before, used, output, requested)

    def _lay_out(
        self,
        order: Ints,
        below: Callable[[int], Ints],
        before: Ints,
        used: Ints,
        output: bytearray,
        requested: Sequence[int],
    ) -> Plan:
        """Write the columns of the tasks in `order`, numbering them as they come."""
        columns = Columns()
        keys, program, start, stop, rows = self._keys, self._program, self._start, self._stop, self._rows
        number: Ints = array("i", b"\xff" * (4 * len(keys)))
        fused: dict[Any, int] = {}
        passed = frozenset(~i for i, v in enumerate(self.literals) if callable(v) and not isinstance(v, type))
        columns.flags = flags = bytearray(len(order))
        columns.keys = [keys[task] for task in order]
        out_rows, row_start = columns.rows, columns.row_start
        inputs, consumers, input_start = columns.inputs, columns.consumers, columns.input_start
        for t, task in enumerate(order):
            number[task] = t
            flags[t] = output[task]
            code = program[task]
            row: Any = rows[start[task] : stop[task]]
            if before[task] >= 0:
                chain = [task]
                while before[chain[-1]] >= 0:
                    chain.append(before[chain[-1]])
                chain.reverse()
                columns.members[t] = tuple(keys[member] for member in chain)
                code, row = self._fuse(chain, fused)
            elif code == _GIVEN:
                flags[t] |= GIVEN
                code = self.program((), 1)
            if passed and not passed.isdisjoint(row):
                code = self._calling(code, tuple([r for r in row if r in passed]), columns)
            columns.program.append(code)
            out_rows.extend([number[r] if r >= 0 else r for r in row])
            row_start.append(len(out_rows))
            for p in below(task):
                inputs.append(number[p])
                consumers.append(used[p] + output[p])
            input_start.append(len(inputs))
        _add_children(columns, [used[task] for task in order])
        columns.programs, columns.functions, columns.literals = self.programs, self.functions, self.literals
        columns.kinds = range(len(self.programs))
        return Plan(columns, [number[task] for task in requested])

    def _calling(self, code: int, passed: tuple[int, ...], columns: Columns) -> int:
        """Return the number of a program that is given these functions to call: what it does depends on them."""
        number = self._calling_of.get((code, passed))
        if number is None:
            number = self._calling_of[code, passed] = len(self.programs)
            self.programs.append(self.programs[code])
            columns.passed[number] = passed
        return number

    def _fuse(self, chain: list[int], fused: dict[Any, int]) -> tuple[int, list[int]]:
        """Return the program and the operand row of a chain of tasks, each an input of the next."""
        row: list[int] = []
        shape: list[tuple[int, tuple[int, ...]]] = []
        previous = -1
        for task in chain:
            operands = self._rows[self._start[task] : self._stop[task]]
            links = tuple(i for i, r in enumerate(operands) if r == previous) if previous >= 0 else ()
            row.extend(r for r in operands if r != previous or previous < 0)
            shape.append((self._program[task], links))
            previous = task
        name = tuple(shape)
        code = fused.get(name)
        if code is None:
            code = fused[name] = self.program(*compose([(self.programs[p], links) for p, links in shape]))
        return code, row

    # --- errors -------------------------------------------------------------------------------------------------------

    def _cycle(self, tasks: list[int]) -> GraphCycle:
        keys = [repr(self._keys[task]) for task in tasks]
        shown = [*keys[:_SHOWN], f"... {len(keys) - _SHOWN} more ..."] if len(keys) > _SHOWN else keys
        return GraphCycle(
            f"the graph has a cycle: {' needs '.join([*shown, keys[0]])}. Remove one of these dependencies."
        )

    def _missing(self, task: int, order: Ints) -> MissingKey:
        users = (t for t in order if task in self._rows[self._start[t] : self._stop[t]])
        user = next(users, None)
        who = "it was requested" if user is None else f"task {self._keys[user]!r} needs it"
        return MissingKey(f"key {self._keys[task]!r} is not in the graph, but {who}. Add it, or correct the reference.")


def _add_children(columns: Columns, counts: list[int]) -> None:
    """Fill in children, in-degrees and heights from the inputs; `counts` is each task's number of children."""
    size = len(columns.keys)
    starts = columns.input_start
    total = 0
    for count in counts:
        total += count
        columns.child_start.append(total)
    cursor = columns.child_start[:size]
    children, indegrees = array("i", bytes(4 * total)), array("i", bytes(4 * total))
    columns.children, columns.indegrees = children, indegrees
    inputs = columns.inputs
    for t in range(size):
        indegree = starts[t + 1] - starts[t]
        for p in inputs[starts[t] : starts[t + 1]]:
            at = cursor[p]
            children[at], indegrees[at] = t, indegree
            cursor[p] = at + 1
    heights: Ints = array("i", bytes(4 * size))
    columns.heights = heights
    for t in range(size - 1, -1, -1):
        above = heights[t] + 1
        for p in inputs[starts[t] : starts[t + 1]]:
            if heights[p] < above:
                heights[p] = above

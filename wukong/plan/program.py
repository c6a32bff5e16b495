"""What a task does, as straight-line code without its data; not which tasks there are, nor where inputs come from.

A program is a sequence of calls. An argument is a slot of the task's operand row, or the result of an earlier call:

    add(x, 1)                calls  add(slot 0, slot 1)                row  (x, literal 1)
    f([x, y], axis=0)        calls  c0 = make_list(slot 0, slot 1)     row  (x, y, literal 0)
                                    c1 = f(c0, axis=slot 2)

The row belongs to the task and the program does not mention it, so tasks that differ only in their data share one
program: every addition of a tree reduction is the same program. Functions are numbers too, into a table of the plan.
"""

from collections.abc import Sequence
from types import FrameType
from typing import Any, Final, NamedTuple

Functions = Sequence[Any]


class Call(NamedTuple):
    """One call of a program.

    Attributes
    ----------
    func : int
        Which function, an index into the plan's table.
    args : tuple of int
        ``r >= 0`` is slot ``r`` of the operand row, ``r < 0`` the result of call ``~r``.
    kwnames : tuple of str
        Names of the last ``len(kwnames)`` arguments, which are passed by keyword.
    member : int
        Which of the task's members (original keys) the call belongs to.
    """

    func: int
    args: tuple[int, ...]
    kwnames: tuple[str, ...] = ()
    member: int = 0


class Program:
    """Calls over `slots` operands; its result is that of the last call, or operand 0 where there is no call.

    Attributes
    ----------
    calls : tuple of Call
        In the order they run.
    slots : int
        Length of the operand row.
    direct : int
        The function, where the program is one call that takes the whole row in order; else -1.
    drops : tuple of tuple of int
        For each call, the results and operands (numbered as in `Call.args`) that nobody needs once it has returned.
    """

    __slots__ = ("calls", "direct", "drops", "slots")

    def __init__(self, calls: Sequence[Call], slots: int) -> None:
        self.calls = tuple(calls)
        self.slots = slots
        self.direct = -1
        if len(self.calls) == 1 and not self.calls[0].kwnames and self.calls[0].args == tuple(range(slots)):
            self.direct = self.calls[0].func
        last_use: dict[int, int] = {}
        for position, call in enumerate(self.calls):
            for ref in call.args:
                last_use[ref] = position
        drops: list[list[int]] = [[] for _ in self.calls]
        for ref, position in last_use.items():
            drops[position].append(ref)
        self.drops = tuple(map(tuple, drops))

    def __repr__(self) -> str:
        return f"Program({len(self.calls)} calls, {self.slots} slots)"


#: The program of a task that only passes its one operand on.
PASS: Final = Program((), 1)


def execute(program: Program, functions: Functions, operands: list[Any]) -> Any:
    """Run a program and return its result.

    Parameters
    ----------
    program : Program
        What to run.
    functions : sequence of callable
        The table that `Call.func` points into.
    operands : list, length `program.slots`
        The operand row with the values filled in. It is consumed: entries are dropped as soon as no call needs them.

    Raises
    ------
    BaseException
        Whatever a call raises, as it is; `failed_member` then tells whose call it was.
    """
    if program.direct >= 0:
        return functions[program.direct](*operands)
    if not program.calls:
        return operands[0]
    return _walk(program, functions, operands)


def _walk(program: Program, functions: Functions, operands: list[Any]) -> Any:
    results: list[Any] = []
    for position, (func, refs, kwnames, _) in enumerate(program.calls):
        args = [operands[r] if r >= 0 else results[~r] for r in refs]
        for r in program.drops[position]:
            if r >= 0:
                operands[r] = None
            else:
                results[~r] = None
        if kwnames:
            kwargs = dict(zip(kwnames, args[-len(kwnames) :], strict=True))
            del args[-len(kwnames) :]
            results.append(functions[func](*args, **kwargs))
            del kwargs
        else:
            results.append(functions[func](*args))
        del args
    return results[-1]


def failed_member(program: Program, error: BaseException) -> int:
    """Tell which member's call raised `error` out of `execute`, from its traceback: success pays nothing for it.

    To be asked where the error was caught, before it is pickled; 0 if the traceback does not show it.
    """
    traceback = error.__traceback__
    while traceback is not None:
        frame: FrameType = traceback.tb_frame
        if frame.f_code is _walk.__code__:
            known = frame.f_locals
            if known.get("program") is not program:
                break
            call: Call = program.calls[known["position"]]
            return call.member
        traceback = traceback.tb_next
    return program.calls[0].member if program.calls else 0


def compose(parts: list[tuple[Program, tuple[int, ...]]]) -> tuple[tuple[Call, ...], int]:
    """Return the calls and slots of programs run one after the other.

    Each part says which of its slots take the result of the part before; the other slots keep their order.
    """
    calls: list[Call] = []
    slots = 0
    result = 0
    for member, (program, links) in enumerate(parts):
        refs = []
        linked = set(links)
        for slot in range(program.slots):
            if slot in linked:
                refs.append(result)
            else:
                refs.append(slots)
                slots += 1
        base = len(calls)
        for func, args, kwnames, _ in program.calls:
            calls.append(Call(func, tuple(refs[r] if r >= 0 else r - base for r in args), kwnames, member))
        result = ~(len(calls) - 1) if program.calls else refs[0]
    return tuple(calls), slots


def pass_on(value: Any) -> Any:
    """Return the value."""
    return value


def make_list(*items: Any) -> list[Any]:
    """Build the list that a nested argument stands for."""
    return list(items)


def make_tuple(*items: Any) -> tuple[Any, ...]:
    """Build the tuple that a nested argument stands for."""
    return items


def make_set(*items: Any) -> set[Any]:
    """Build the set that a nested argument stands for."""
    return set(items)


def make_dict(*items: Any) -> dict[Any, Any]:
    """Build the dictionary that a nested argument stands for, from keys and values in turn."""
    return dict(zip(items[::2], items[1::2], strict=True))

"""Cutting a plan into segments, and which of them the static schedules share. Their bytes are the codec's business.

A segment is a range of consecutive task numbers. Tasks are numbered depth-first, so what an executor walks from a leaf
lies in few segments; a *static schedule* is the part of the plan that is reachable from one leaf, and is never copied:
it is a list of task numbers, and schedules that meet share the segments from there on.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from wukong.plan.columns import Columns
from wukong.plan.reading import Reading

#: Most tasks, and most operands and edges together (about 4 bytes each), of a segment that has several tasks.
MOST_TASKS: Final = 1024
MOST_ENTRIES: Final = 16384


def cut(columns: Columns, most_tasks: int = MOST_TASKS, most_entries: int = MOST_ENTRIES) -> list[int]:
    """Return the first task of each segment.

    Parameters
    ----------
    columns : Columns
        All tasks of a plan.
    most_tasks, most_entries : int
        A segment ends before it has more tasks, or more operands and edges, than this; but it has at least one task.
    """
    starts: list[int] = []
    tasks, entries = most_tasks, 0
    rows, inputs, children = columns.row_start, columns.input_start, columns.child_start
    before = 0
    for task in range(len(columns.keys)):
        here = rows[task + 1] + inputs[task + 1] + children[task + 1]
        entries += here - before
        if tasks >= most_tasks or entries > most_entries:
            starts.append(task)
            tasks, entries = 0, here - before
        tasks += 1
        before = here
    return starts


def static_schedule(plan: Reading, leaf: int) -> list[int]:
    """Return what is reachable from `leaf`, in depth-first order (Wukong, SoCC '20, section 3.2)."""
    seen = {leaf}
    stack = [leaf]
    while stack:
        for child in plan.children(stack.pop()):
            if child not in seen:
                seen.add(child)
                stack.append(child)
    return sorted(seen)


def segments_of(starts: Sequence[int], tasks: Iterable[int]) -> list[int]:
    """Return the numbers of the segments that hold `tasks` (ascending), each once."""
    numbers: list[int] = []
    segment = -1
    for task in tasks:
        while segment + 1 < len(starts) and starts[segment + 1] <= task:
            segment += 1
        if not numbers or numbers[-1] != segment:
            numbers.append(segment)
    return numbers

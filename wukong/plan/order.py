"""In which order tasks are numbered: topological, depth-first along the critical path. Loops over integers only.

Both walks keep their own stack, so a chain may be longer than any recursion limit.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, compress
from typing import Any

from wukong.plan.columns import Ints

_NEW, _OPEN, _DONE = 0, 1, 2


def needed(roots: Iterable[int], size: int, inputs: Callable[[int], Sequence[int]]) -> Ints:
    """Return the tasks that `roots` need, themselves included, every input before its consumers.

    Parameters
    ----------
    roots : iterable of int
        Where to start from.
    size : int
        Tasks are numbered below this.
    inputs : callable
        Gives the inputs of a task; negative ones and repeats are passed over. It is asked once for each task.

    Raises
    ------
    Cycle
        If a task needs itself.
    """
    state = bytearray(size)
    order = array("i")
    stack = list(roots)
    stack.reverse()
    while stack:
        task = stack[-1]
        if state[task] == _NEW:
            state[task] = _OPEN
            for r in inputs(task):
                if r >= 0 and state[r] != _DONE:
                    if state[r] == _OPEN:
                        path = open_path(stack, state)
                        raise Cycle(path[path.index(r) :])
                    stack.append(r)
        else:
            stack.pop()
            if state[task] == _OPEN:
                state[task] = _DONE
                order.append(task)
    return order


def open_path(stack: list[int], state: bytearray) -> list[int]:
    """Return the tasks under way, outermost first: of a task that was pushed several times, the last one is open."""
    return list(dict.fromkeys(t for t in reversed(stack) if state[t] == _OPEN))[::-1]


class Cycle(Exception):  # noqa: N818 - the builder turns it into a GraphCycle with keys
    """These tasks need each other: each the next, and the last the first."""

    def __init__(self, tasks: list[int]) -> None:
        super().__init__(tasks)
        self.tasks = tasks


def depth_first(roots: Iterable[int], size: int, inputs: Callable[[int], Sequence[int]], depth: Ints) -> Ints:
    """Return the tasks that `roots` need in the order an executor should run them.

    Of the inputs of a task the one with the longest path below it comes first: its siblings are then short, and few
    values wait while the long one is computed. Equally deep inputs come in argument order. The graph is acyclic.
    """
    done = bytearray(size)
    order = array("i")
    stack = list(roots)
    stack.reverse()
    deepness: Any = depth.__getitem__
    while stack:
        task = stack[-1]
        if done[task] == _NEW:
            below = inputs(task)
            if below:
                done[task] = _OPEN
                if len(below) > 1:
                    below = sorted(below[::-1], key=deepness)  # noqa: C415 - of equals, the last comes out first
                stack.extend([r for r in below if done[r] == _NEW])
                continue
        stack.pop()
        if done[task] != _DONE:
            done[task] = _DONE
            order.append(task)
    return order


def release_early(order: Ints, size: int, inputs: Callable[[int], Sequence[int]], output: bytearray) -> Ints:
    """Return the tasks of `order` with those that release a value moved to where they can first run.

    Depth first alone leaves a value waiting for its last consumer as long as that consumer's turn has not come, though
    all it needs may be there: in ``x + x.T`` half of the matrix. A task whose inputs are all there and that is the
    last to need one of them runs at once; a task that would only add a value keeps its place.

    Parameters
    ----------
    order : array of int32
        Topological.
    size : int
        Tasks are numbered below this.
    inputs : callable
        Gives the distinct inputs of a task, all of which are in `order`.
    output : bytearray, length size
        Not zero for tasks whose values are never released.
    """
    uses, missing = array("i", bytes(4 * size)), array("i", bytes(4 * size))
    for task in order:
        below = inputs(task)
        missing[task] = len(below)
        for p in below:
            uses[p] += 1
    start = array("i", accumulate(uses, initial=0))
    consumers, end = array("i", bytes(4 * start[-1])), start[:-1]
    for task in order:
        for p in inputs(task):
            consumers[end[p]] = task
            end[p] += 1
    for task in compress(order, map(output.__getitem__, order)):
        uses[task] += 1  # one that never ends
    done = bytearray(size)
    early = array("i")
    stack: list[int] = []
    for following in order:
        if done[following]:
            continue
        stack.append(following)
        while stack:
            task = stack.pop()
            if done[task]:
                continue
            done[task] = 1
            early.append(task)
            for consumer in reversed(consumers[start[task] : end[task]]):
                missing[consumer] -= 1
                if not missing[consumer]:
                    for p in inputs(consumer):
                        if uses[p] == 1:
                            stack.append(consumer)
                            break
            for p in inputs(task):
                uses[p] -= 1
                if uses[p] == 1:
                    for consumer in consumers[start[p] : end[p]]:
                        if not done[consumer]:
                            if not missing[consumer]:
                                stack.append(consumer)
                            break
    return early

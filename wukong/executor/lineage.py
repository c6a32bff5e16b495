"""Recomputing a value that is nowhere any more: recovery by pull.

Whoever needs a lost value computes it again from what is left of its inputs, privately: nothing is committed, no edge
is settled, so nobody else can tell. Iterative: lineage may be as deep as the graph.
"""

from collections.abc import Generator
from typing import Any

from wukong.errors import TaskLost
from wukong.executor import effects as fx
from wukong.executor.context import Context, Tally
from wukong.executor.session import Session
from wukong.protocol import messages as m


def recompute(
    tasks: list[int], local: dict[int, Any], context: Context, session: Session, tally: Tally
) -> Generator[fx.Effect, Any, "dict[int, Any] | fx.Raised"]:
    """Return the values of `tasks`, computed from inputs at hand, in a store, or recomputed in their turn.

    Parameters
    ----------
    tasks : list of int
        Tasks whose values are needed.
    local : dict
        Values at hand; not changed.
    context : Context
        The job and the place.
    session : Session
        The way to the control store.
    tally : Tally
        Counts what was run again.

    Returns
    -------
    dict or Raised
        The value of each task, or what a task raised when run again.

    Raises
    ------
    Ended
        If the job is over.
    """
    plan = context.plan
    values: dict[int, Any] = {}
    sought = set(tasks)
    stack = list(tasks)
    while stack:
        task = stack[-1]
        if task in values or task in local:
            stack.pop()
            continue
        if not plan.loaded(task):
            yield fx.Load([task])
        lacking = [p for p in plan.inputs(task) if p not in values and p not in local]
        unsought = [p for p in lacking if p not in sought]
        if unsought:
            sought.update(unsought)
            yield from _find(unsought, values, context, session)
            continue
        if lacking:
            stack.extend(lacking)
            continue
        if plan.once(task):
            return fx.Raised(_gone(plan.key(task)))
        known = {p: values[p] if p in values else local[p] for p in plan.inputs(task)}
        answer = yield fx.Run(task, known)
        if isinstance(answer, fx.Raised):
            return answer
        tally.recomputed += 1
        values[task] = answer.value
        stack.pop()
    return {task: values[task] for task in tasks}


def _gone(key: Any) -> TaskLost:
    return TaskLost(
        f"the value of task {key!r} is lost, and the task may run only once. Store the value where it is safe, or "
        "allow the task to run again."
    )


def _find(
    tasks: list[int], values: dict[int, Any], context: Context, session: Session
) -> Generator[fx.Effect, Any, None]:
    """Add to `values` those of `tasks` that still exist somewhere."""
    names = []
    for shard, group in session.by_home(tasks, lambda task: task):
        found = yield from session.ask(shard, m.Probe(tuple(group)))
        for task, state in zip(group, found, strict=True):
            if state.value is not None and state.value.kind == m.INLINE:
                values[task] = context.unpack(task, state.value.body)
            elif state.value is not None and state.value.kind == m.STORED:
                names.append((task, state.attempt))
    if names:
        for (task, _), value in zip(names, (yield fx.Fetch(names)), strict=True):
            if value is not fx.LACKING:
                values[task] = value

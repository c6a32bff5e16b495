"""Recomputing values that are nowhere any more: recovery by pull.

Whoever needs a lost value computes it again from what is left of its inputs, and theirs. No task is claimed for it and
no edge settled. But what takes longer to compute than to write is written on the way, under the name that its task's
record promises, and the record told (docs/protocol.md, "Lost values"): whoever comes after a recomputation that was cut
short goes on from there.

Iterative, as lineage may be as deep as the graph; records are found in few requests, each twice as deep as the last;
and a value is let go with its last use.
"""

from collections import Counter
from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Any

from wukong.executor import effects as fx
from wukong.executor.context import Context, Tally
from wukong.executor.finished import Computed
from wukong.executor.lost import gone
from wukong.executor.session import Session, Steps
from wukong.executor.settle import Settler
from wukong.protocol import messages as m
from wukong.protocol import states

#: Most tasks that are asked about in one request, and before it is known whether they matter.
_PER_REQUEST, _AHEAD = 4096, 256


class Lineage:
    """What is known of lost values while they are computed again.

    Parameters
    ----------
    local : dict
        Values at hand; not changed.
    context : Context
        The job and the place.
    session : Session
        The way to the control store.
    settler : Settler
        Writes what is worth it.
    tally : Tally
        Counts what was run again.
    """

    def __init__(
        self, local: dict[int, Any], context: Context, session: Session, settler: Settler, tally: Tally
    ) -> None:
        self._local = local
        self._context = context
        self._plan = context.plan
        self._session = session
        self._settler = settler
        self._tally = tally
        self._values: dict[int, Any] = {}
        self._needs: Counter[int] = Counter()
        self._records: dict[int, m.State] = {}
        self._gone: set[int] = set()  # tasks whose values the store does not have, whatever the records say
        self._depth = 2
        self._order: list[int] = []  # tasks to run, a heap: inputs have lower numbers than their consumers
        self._planned: set[int] = set()
        self._unsaved: dict[int, float] = {}  # seconds of work that would be lost with a value
        self._writing: list[Computed] = []
        self._fresh = 0.0  # seconds of work since something was written

    def recompute(self, tasks: list[int]) -> Steps:
        """Return the values of `tasks`, or the `Raised` of a task that raised when it was run again.

        Raises
        ------
        Ended
            If the job is over.
        """
        self._needs.update(tasks)
        while lacking := (yield from self._bring(tasks)):
            yield from self._trace(lacking)
            while self._order:
                task = heappop(self._order)
                inputs = self._plan.inputs(task)
                if lacking := (yield from self._bring(inputs)):
                    heappush(self._order, task)
                    yield from self._trace(lacking)
                    continue
                failure = yield from self._run(task, inputs)
                if failure is not None:
                    return failure
        yield from self._flush()
        return {task: self._values[task] for task in tasks}

    # --- finding ------------------------------------------------------------------------------------------------------

    def _bring(self, tasks: Iterable[int]) -> Steps:
        """Have at hand what is with the records or in the value store; return those of `tasks` that are not."""
        away = [task for task in tasks if task not in self._values and task not in self._local]
        stored = []
        for task in away:
            value = self._promised(task)
            if value is not None and value.kind == m.INLINE:
                self._values[task] = self._context.unpack(task, value.body)
            elif value is not None:
                stored.append(task)
        if stored:
            found = yield fx.Fetch([(task, self._records[task].attempt) for task in stored])
            for task, value in zip(stored, found, strict=True):
                if value is fx.LACKING:
                    self._gone.add(task)
                else:
                    self._values[task] = value
        return [task for task in away if task not in self._values]

    def _promised(self, task: int) -> m.Value | None:
        """Return where the value of a task is said to be, if that is not with the dead."""
        record = self._records.get(task)
        if record is None or record.value is None or record.value.kind == m.HELD or task in self._gone:
            return None
        return record.value

    def _trace(self, tasks: list[int]) -> Steps:
        """Plan what has to run for the values of `tasks`, which are not at hand."""
        while tasks:
            if unknown := [task for task in tasks if task not in self._records]:
                yield from self._probe(unknown)
            lost = [task for task in tasks if self._promised(task) is None and task not in self._planned]
            if unloaded := [task for task in lost if not self._plan.loaded(task)]:
                yield fx.Load(unloaded)
            below: dict[int, None] = {}
            for task in lost:
                self._planned.add(task)
                heappush(self._order, task)
                inputs = self._plan.inputs(task)
                self._needs.update(inputs)
                below.update(dict.fromkeys(inputs))
            tasks = [p for p in below if p not in self._values and p not in self._local]

    def _probe(self, tasks: list[int]) -> Steps:
        """Read the records of `tasks` and of their next ancestors, each time twice as many generations."""
        plan, asked = self._plan, dict.fromkeys(tasks)
        level: Iterable[int] = tasks
        for _ in range(self._depth - 1):
            level = {p for task in level if plan.loaded(task) for p in plan.inputs(task)}
            level = [p for p in level if p not in asked and p not in self._records and p not in self._local]
            if not level or len(asked) + len(level) > _AHEAD:
                break
            asked.update(dict.fromkeys(level))
        self._depth *= 2
        for shard, group in self._session.by_home(list(asked), lambda task: task):
            for start in range(0, len(group), _PER_REQUEST):
                chunk = tuple(group[start : start + _PER_REQUEST])
                found = yield from self._session.ask(shard, m.Probe(chunk))
                self._records.update(zip(chunk, found, strict=True))

    # --- running ------------------------------------------------------------------------------------------------------

    def _run(self, task: int, inputs: Iterable[int]) -> Steps:
        """Run a task again; return the `Raised` if it is one."""
        plan, values = self._plan, self._values
        if plan.once(task):
            return fx.Raised(gone(plan.key(task)))
        answer = yield fx.Run(task, {p: values[p] if p in values else self._local[p] for p in inputs})
        if isinstance(answer, fx.Raised):
            return answer
        self._tally.recomputed += 1
        self._planned.discard(task)
        values[task] = answer.value
        seconds = answer.seconds + sum(self._unsaved.get(p, 0.0) for p in inputs)
        for p in inputs:
            self._needs[p] -= 1
            if not self._needs[p]:
                values.pop(p, None)
        self._fresh += answer.seconds
        try:
            self._save(task, answer.value, seconds)
        except Exception as error:
            return fx.Raised(error)
        if self._fresh >= self._context.costs.linger:
            yield from self._flush()
        return None

    def _save(self, task: int, value: Any, seconds: float) -> None:
        """Have a value written if whoever needed it next would take longer to compute it, and its record is there."""
        record = self._records[task]
        if record.state in (states.SETTLED, states.UNSETTLED):
            packed = self._context.pack(value)
            if packed.inline or seconds >= self._context.costs.write(packed.nbytes):
                self._writing.append(Computed(task, record.attempt, packed, record.value is None))
                return
        self._unsaved[task] = seconds

    def _flush(self) -> Steps:
        """Write what is to be written."""
        batch, self._writing, self._fresh = self._writing, [], 0.0
        if batch:
            yield from self._settler.restore(batch)
        for computed in batch:
            self._records[computed.task] = self._records[computed.task]._replace(value=computed.restored().value)
            self._gone.discard(computed.task)

"""What must hold of the records, looked at with every request of a simulated run.

- One attempt wins each task, and no attempt is given to two executors. What a shard forgets, or the client has it
  forget before it opens the job again, is forgotten here as well.
- No task is given to anybody before all its inputs have been committed, nor to an executor whose lease is over.
- A value is held only by who asked to.
- Where only a value is told of, no task becomes done, and none settled.
- Where nobody dies, stalls or forgets, no task has a second attempt and nobody lapses.
- A task that may run only once runs once for each time it was given away to be run, and that is a second time only if
  its shard has forgotten something since, and the client has not opened the job again, knowing that.
"""

from collections import Counter
from typing import Any

from wukong.protocol import messages as m
from wukong.protocol import states
from wukong.protocol.model import Shard
from wukong.protocol.sharding import home
from wukong.simulation.graphs import RandomSchedule


class Violation(AssertionError):  # noqa: N818 - it is the name of what is looked for
    """A run broke what must hold; the message has the seed and the last events."""


class Witness:
    """Sees every request and its answer.

    Parameters
    ----------
    plan : RandomSchedule
        What runs.
    shards : int
        Of the job's records.
    calm : bool
        Whether nothing happens for which a task may run twice.
    """

    def __init__(self, plan: RandomSchedule, shards: int, calm: bool) -> None:
        self.won: dict[int, int] = {}
        self._plan = plan
        self._shards = shards
        self._calm = calm
        self._committed: set[int] = set()
        self._granted: dict[tuple[int, int], str] = {}
        # Of tasks that may run only once: to whom each was given last, how often it may run where, and of which nobody
        # can know yet that they were given away.
        self._given: dict[int, tuple[int, str]] = {}
        self._may_run: Counter[tuple[int, str]] = Counter()
        self._forgiven: set[int] = set()
        self._known: set[int] = set()

    def apply(self, number: int, shard: Shard, request: m.Request, now: float, name: str, echo: bool) -> m.Reply:
        """Carry out a request of `name` and check what came of it; of an echo nobody hears the answer."""
        before = dict(shard.active)
        closed, base = not shard.open, shard.base
        alone = [o.task for o in request.outcomes if o.settled is None] if isinstance(request, m.Commit) else []
        undone = [task for task in alone if task not in shard.done]
        reply = shard.apply(request, now)
        for task in alone:
            if before.get(task) != shard.active.get(task) or (task in undone and task in shard.done):
                raise Violation(f"what was told of task {task} is its value alone, and changed more")
        self._check_records(shard, before, now)
        if shard.base > base:
            self.forget(number, shard)  # it was opened again, maybe by a late copy after it had forgotten that it was
            known = {task for task in self._known if home(task, self._shards) == number}
            self._forgiven -= known
            self._known -= known
        kind = type(request)
        if kind is m.Release and request.everything:  # type: ignore[union-attr]
            if not shard.open:
                self.forget(number, shard)
        elif reply.status != m.RUNNING:
            pass
        elif kind is m.Sweep:
            # A copy may come after the end, to a job that another copy has opened again.
            if self._calm and reply.body[0] and not echo:
                raise Violation(f"the owners of tasks {reply.body[0]} have lapsed though nobody died")
        elif echo and closed:
            self.forgive(number)  # a late copy has opened the job again after its end: nobody can know that
        elif kind is m.Claim:
            if not echo:
                self._check_grants(reply.body, name)
        elif kind is m.Commit or kind is m.Arrive:
            for outcome, settlement in zip(request.outcomes, reply.body, strict=True):  # type: ignore[union-attr]
                if kind is m.Commit and settlement.verdict in (m.OK, m.HOLDING):
                    self._commit(outcome)
                if settlement.verdict == m.HOLDING and not outcome.hold:
                    raise Violation(f"the value of task {outcome.task} is to be held, but nobody asked for that")
                if not echo:
                    self._check_grants(settlement.granted, name)
        return reply

    def forget(self, number: int, shard: Shard) -> None:
        """Forget what a shard has forgotten."""
        for task in [task for task in self.won if home(task, self._shards) == number]:
            if task not in shard.done:
                del self.won[task]
            else:
                self.won[task] = shard.done[task]
        for pair in [pair for pair in self._granted if home(pair[0], self._shards) == number]:
            del self._granted[pair]

    def forgive(self, number: int) -> None:
        """Let what may run only once, and is at home in a shard, be given away again: it may have forgotten that."""
        forgotten = {task for task in self._plan.only_once if home(task, self._shards) == number}
        self._forgiven |= forgotten
        self._known -= forgotten

    def remind(self) -> None:
        """Note that the client knows what was forgotten: in shards that it has opened again, nothing is forgiven."""
        self._known |= self._forgiven

    def run(self, task: int, name: str) -> None:
        """Note that a task runs."""
        if self._plan.once(task):
            self._may_run[task, name] -= 1
            if self._may_run[task, name] < 0:
                raise Violation(f"task {task} may run only once, and {name} runs it again")

    def _give_once(self, grant: m.Grant, name: str) -> None:
        task, given = grant.task, (grant.attempt, name)
        if m.tries(grant.attempt) > 1 or self._given.get(task) == given:
            return
        if task in self._given and task not in self._forgiven:
            raise Violation(f"task {task} may run only once, and is given to {name} after {self._given[task][1]}")
        self._given[task] = given
        self._may_run[task, name] += 1

    def _commit(self, outcome: m.Outcome) -> None:
        winner = self.won.setdefault(outcome.task, outcome.attempt)
        if winner != outcome.attempt:
            raise Violation(f"attempts {winner} and {outcome.attempt} of task {outcome.task} both won")
        self._committed.add(outcome.task)

    def _check_records(self, shard: Shard, before: dict[int, Any], now: float) -> None:
        done = shard.done
        for task, active in shard.active.items():
            if active == before.get(task):
                continue
            if active.state == states.CLAIMED and shard.executors[active.owner].deadline < now:
                raise Violation(f"task {task} was given to {active.owner}, whose lease is over")
            if task in done and (self._shards == 1 or active.state == states.CLAIMED):
                raise Violation(f"task {task} has been committed and is to run again")
        if shard.arrived and not done.keys().isdisjoint(shard.arrived):
            raise Violation("edges are kept of tasks that have been committed")

    def _check_grants(self, grants: tuple[m.Grant, ...], name: str) -> None:
        for grant in grants:
            if grant.committed is not None or grant.task == m.CLIENT:
                continue
            early = [p for p in self._plan.inputs(grant.task) if p not in self._committed]
            if early:
                raise Violation(f"task {grant.task} was given away before its inputs {early} were committed")
            if self._calm and grant.attempt > 1:
                raise Violation(f"task {grant.task} is to run a second time though nobody died")
            if self._plan.once(grant.task):
                self._give_once(grant, name)
            owner = self._granted.setdefault((grant.task, grant.attempt), name)
            if owner != name:
                raise Violation(f"attempt {grant.attempt} of task {grant.task} was given to {owner} and to {name}")

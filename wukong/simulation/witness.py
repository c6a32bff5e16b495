"""What must hold of the records, looked at with every request of a simulated run.

- One attempt wins each task, and no attempt is given to two executors. What a shard forgets, or the client has it
  forget before it opens the job again, is forgotten here as well.
- No task is given to anybody before all its inputs have been committed, nor to an executor whose lease is over.
- A value is held only by who asked to.
- Where nobody dies, stalls or forgets, no task has a second attempt and nobody lapses.
"""

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

    def apply(self, number: int, shard: Shard, request: m.Request, now: float, name: str, echo: bool) -> m.Reply:
        """Carry out a request of `name` and check what came of it; of an echo nobody hears the answer."""
        before = dict(shard.active)
        reply = shard.apply(request, now)
        self._check_records(shard, before, now)
        kind = type(request)
        if kind is m.Release and request.everything:  # type: ignore[union-attr]
            if not shard.open:
                self.forget(number, shard)
        elif reply.status != m.RUNNING:
            pass
        elif kind is m.Sweep:
            if self._calm and reply.body[0]:
                raise Violation(f"the owners of tasks {reply.body[0]} have lapsed though nobody died")
        elif echo:
            pass
        elif kind is m.Claim:
            self._check_grants(reply.body, name)
        elif kind is m.Commit or kind is m.Arrive:
            for outcome, settlement in zip(request.outcomes, reply.body, strict=True):  # type: ignore[union-attr]
                if kind is m.Commit and settlement.verdict in (m.OK, m.HOLDING):
                    self._commit(outcome)
                if settlement.verdict == m.HOLDING and not outcome.hold:
                    raise Violation(f"the value of task {outcome.task} is to be held, but nobody asked for that")
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
            owner = self._granted.setdefault((grant.task, grant.attempt), name)
            if owner != name:
                raise Violation(f"attempt {grant.attempt} of task {grant.task} was given to {owner} and to {name}")

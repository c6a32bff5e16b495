"""The shards of a simulated job: stores that forget, and clocks that jump."""

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from random import Random
from typing import Any

from wukong.protocol import messages as m
from wukong.protocol import states
from wukong.protocol.model import Shard
from wukong.protocol.sharding import home
from wukong.simulation.graphs import RandomSchedule
from wukong.simulation.witness import Witness

#: Seconds after which the records of a shard end that was not opened or swept since.
TTL = 86_400.0


@dataclass
class FailOver:
    """A shard is copied with request `first`, and knows no more than the copy from request `then` on."""

    first: int
    then: int
    shard: int
    empty: bool
    known: Any = None
    expires: float = math.inf


class Records:
    """The records of one job.

    Parameters
    ----------
    plan : RandomSchedule
        What runs.
    shards : list of Shard
        Its shards.
    fate : Random
        Decides what is forgotten, and how clocks jump.
    forget : int
        How many fail-overs there are.
    calm : bool
        Whether nothing happens for which a task may run twice.

    Attributes
    ----------
    generations : list of int
        How often each shard has failed over.
    revived : bool
        Whether a shard knows a job again that was released: it has forgotten that, or a copy of the opening came.
    """

    def __init__(self, plan: RandomSchedule, shards: list[Shard], fate: Random, forget: int, calm: bool) -> None:
        self.shards = shards
        self.generations = [0] * len(shards)
        self._plan = plan
        self._fate = fate
        self.revived = False
        self._expires = [math.inf] * len(shards)
        self._clocks = [0.0] * len(shards)
        self._requests = 0
        self.witness = Witness(plan, len(shards), calm)
        self._fail_overs = [self._drawn() for _ in range(forget)]

    def _drawn(self) -> FailOver:
        fate = self._fate
        first = fate.randint(1, 5 * len(self._plan.tasks))
        return FailOver(first, first + fate.randint(1, 12), fate.randrange(len(self.shards)), fate.random() < 0.3)

    def apply(self, number: int, request: m.Request, now: float, name: str, echo: bool) -> m.Reply:
        """Carry out a request of the process `name`, by the clock of the shard."""
        shard = self.shards[number]
        closed = not shard.open
        reply = self.witness.apply(number, shard, request, now + self._clocks[number], name, echo)
        if closed and shard.open and echo:
            self.revived = True
        if (closed and shard.open) or type(request) is m.Sweep:
            self._expires[number] = now + TTL
        return reply

    def home(self, task: int) -> Shard:
        """Return the shard where a task's record is."""
        return self.shards[home(task, len(self.shards))]

    def state(self, task: int) -> int:
        """Return the state of a task."""
        shard = self.home(task)
        active = shard.active.get(task)
        if active is not None:
            return active.state
        return states.SETTLED if task in shard.done else states.WAITING

    def jump(self, number: int, by: float, at_most: float) -> None:
        """Let the clock of a shard jump by up to so many seconds, and be no further than `at_most` from the truth."""
        offset = self._clocks[number] + self._fate.uniform(-by, by)
        self._clocks[number] = min(max(offset, -at_most), at_most)

    def fail_over(self, note: Callable[[int], object]) -> None:
        """With this request, copy and restore shards, as was drawn; call `note` with the shard before it forgets."""
        self._requests += 1
        for plan in list(self._fail_overs):
            shard = self.shards[plan.shard]
            if self._requests >= plan.then:
                self._fail_overs.remove(plan)
                note(plan.shard)
                closed = not shard.open
                self.restore(shard, None if plan.empty else plan.known)
                self.revived |= closed and shard.open
                self._expires[plan.shard] = plan.expires
                self.generations[plan.shard] += 1
                self.witness.forget(plan.shard, shard)
                self.witness.forgive(plan.shard)
            elif self._requests >= plan.first and plan.known is None:
                plan.known, plan.expires = self.snapshot(shard), self._expires[plan.shard]

    def left(self) -> bool:
        """Whether there are records."""
        return any(shard.open or shard.done or shard.active or shard.values for shard in self.shards)

    def endless(self) -> bool:
        """Whether there are records that will not go by themselves."""
        return any(
            shard.open and expires == math.inf for shard, expires in zip(self.shards, self._expires, strict=True)
        )

    @staticmethod
    def snapshot(shard: Shard) -> Any:
        """Return all that a shard knows; what is in it never changes, but for sets and executors."""
        known = {name: copy(value) for name, value in vars(shard).items() if name != "_apply"}
        known["arrived"] = {task: set(parents) for task, parents in shard.arrived.items()}
        known["executors"] = {nonce: copy(executor) for nonce, executor in shard.executors.items()}
        return known

    @staticmethod
    def restore(shard: Shard, known: Any) -> None:
        """Let a shard know no more than it did; nothing if `known` is None."""
        vars(shard).update(known or Records.snapshot(type(shard)()))

"""The rungs: one engine, held back by other costs and by a store that insists.

    1  stateless   every task is invoked through the queue, reads all its inputs from the store and writes its output
    2  + become    an executor goes on with one child that it completed, with the value at hand
    3  + hold      claim before write, delayed I/O, and small values ride with their edges (`wukong.executor.settle`)
    4  + cluster   children cheaper to run here than to ship stay (`wukong.cost.Costs.keep`), short ones are invoked
                   together, and what is made of them is held where this executor also runs what it waits for

The executor, the protocol, the plan and its fused chains are the same on all of them.
"""

from collections.abc import Callable
from dataclasses import astuple
from typing import Any, Final

from wukong.cost import Costs
from wukong.executor.job import Job
from wukong.protocol import messages as m
from wukong.storage.control.base import ControlStore


class OneByOne(Costs):
    """Nothing is worth doing together: one child is kept, one task invoked at a time."""

    __slots__ = ()

    def keep(self, *_: float) -> int:
        """One to become, whatever it is."""
        return 1

    def group(self, task_seconds: float) -> int:  # noqa: ARG002
        """One."""
        return 1


class Written(OneByOne):
    """No value rides with its edge, and none is worth waiting for."""

    __slots__ = ()

    def hold(self, nbytes: int) -> float:  # noqa: ARG002 - however large
        """No time."""
        return 0.0


class Stateless(Written):
    """Nothing at hand is worth anything."""

    __slots__ = ()

    def keep(self, *_: float) -> int:
        """None."""
        return 0


class Insistent:
    """A control store in front of another, that lets no executor keep what it has not written. Asks nobody for that."""

    def __init__(self, store: ControlStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def apply(self, job: str, shard: int, request: m.Request) -> m.Reply:
        """Answer `WRITE` to every value that is held, and pass on the rest."""
        if not isinstance(request, m.Commit):
            return self._store.apply(job, shard, request)
        stored = tuple(outcome for outcome in request.outcomes if outcome.value.kind != m.HELD)
        reply = m.Reply(m.RUNNING, b"", ())
        if stored:
            reply = self._store.apply(job, shard, request._replace(outcomes=stored))
            if reply.status != m.RUNNING:
                return reply
        settlements = iter(reply.body)
        held = (outcome.value.kind == m.HELD for outcome in request.outcomes)
        return reply._replace(body=tuple(m.Settlement(m.WRITE) if is_held else next(settlements) for is_held in held))


RUNGS: Final[dict[str, type[Costs]]] = {
    "stateless": Stateless,
    "+ become": Written,
    "+ hold": OneByOne,
    "+ cluster": Costs,
}


def step_on(rung: str, job: Job) -> Job:
    """Hold a job back to a rung."""
    costs = RUNGS[rung]
    job.costs = costs(*astuple(job.costs))
    if issubclass(costs, Written):
        job.control = Insistent(job.control)
        job.pack = _in_the_store(job.pack)
    return job


def _in_the_store(pack: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: pack(value)._replace(inline=False)

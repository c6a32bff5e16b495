"""An executor's requests to the control store: its nonce, its sequence numbers, and which shard each thing is for."""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, TypeVar

from wukong.executor import effects as fx
from wukong.protocol import messages as m
from wukong.protocol.sharding import home

Thing = TypeVar("Thing")
Steps = Generator[fx.Effect, Any, Any]


#: How often a lease doubles at most.
_DOUBLINGS = 3


class Ended(Exception):  # noqa: N818 - not an error: the job is over for this executor
    """The job is over for this executor. The argument is the reason that the store gave, in bytes."""


class Session:
    """What one executor says to the control store.

    Parameters
    ----------
    nonce : str
        The executor's name.
    lease : float
        Seconds it may be silent.
    shards : int
        Of the job's records.
    said : int
        Requests that somebody else has sent in its name.
    """

    __slots__ = ("_base", "_lease", "_seq", "nonce", "shards")

    def __init__(self, nonce: str, lease: float, shards: int, said: int = 0) -> None:
        self.nonce = nonce
        self.shards = shards
        self._base = self._lease = lease
        self._seq = said

    def ask(self, shard: int, request: m.Request) -> Steps:
        """Send a request and return the answer's body.

        Raises
        ------
        Ended
            If the job has failed, was cancelled or released, or another request of this executor came later.
        """
        reply = yield fx.Ask(shard, request)
        if reply.status != m.RUNNING:
            raise Ended(reply.reason)
        return reply.body

    def claim(self, shard: int, tasks: Sequence[tuple[int, tuple[int, ...]]]) -> Steps:
        """Claim tasks, each with the inputs wanted back; return the grants."""
        return self.ask(shard, m.Claim(*self._head(), tuple(tasks)))

    def stay(self, task: int, tries: int) -> Steps:
        """Let the lease double with each try at a task: what takes longer than it would else be given up for ever."""
        lease = self._base * 2.0 ** min(tries - 1, _DOUBLINGS)
        if lease > self._lease:
            self._lease = lease
            yield from self.ask(self.home(task), m.Renew(self.nonce, lease))

    def commit(self, shard: int, outcomes: Sequence[m.Outcome]) -> Steps:
        """Commit outcomes whose home is this shard; return the settlements."""
        return self.ask(shard, m.Commit(*self._head(), tuple(outcomes)))

    def arrive(self, shard: int, outcomes: Sequence[m.Outcome]) -> Steps:
        """Settle edges into this shard of outcomes whose home is elsewhere; return the settlements."""
        return self.ask(shard, m.Arrive(*self._head(), tuple(outcomes)))

    def release(self, spent: Iterable[tuple[int, Iterable[tuple[int, int]]]]) -> Steps:
        """Give up uses of values that attempts have made, each at its home; return (task, attempt) of those freed."""
        epochs: dict[int, list[tuple[int, int]]] = {}
        for attempt, uses in spent:
            epochs.setdefault(attempt // m.EPOCH, []).extend(uses)
        freed: list[tuple[int, int]] = []
        for epoch, uses in epochs.items():
            for shard, group in self.by_home(uses, lambda use: use[0]):
                freed.extend((yield from self.ask(shard, m.Release(*self._head(), uses=tuple(group), epoch=epoch))))
        return freed

    def end(self, shard: int) -> Steps:
        """Remove all records of a shard, if there are any."""
        yield fx.Ask(shard, m.Release(*self._head(), everything=True))

    def by_home(self, things: Sequence[Thing], task: Callable[[Thing], int]) -> Iterable[tuple[int, Sequence[Thing]]]:
        """Group things by the home of the task each belongs to."""
        if self.shards == 1:
            return ((0, things),) if things else ()
        groups: dict[int, list[Thing]] = {}
        for thing in things:
            groups.setdefault(home(task(thing), self.shards), []).append(thing)
        return groups.items()

    def home(self, task: int) -> int:
        """Return the shard of a task's record."""
        return home(task, self.shards)

    def _head(self) -> tuple[str, int, float]:
        self._seq += 1
        return self.nonce, self._seq, self._lease

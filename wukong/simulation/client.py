"""The client of a simulated job: it launches, watches, repairs, collects and releases, with the steps of live clients.

A client that comes back has nothing but the job's name. What it needs to know besides is a note of a few bytes, kept
where the plan is: the epoch that was opened last, and of which generation the stores were then. A note that was begun
and not finished says that the job has to be opened again.
"""

from collections.abc import Collection, Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from wukong.executor import effects as fx
from wukong.executor.session import Ended, Session, Steps
from wukong.protocol import messages as m
from wukong.protocol import states
from wukong.scheduler import launch, watch

if TYPE_CHECKING:
    from wukong.simulation.world import World

#: Seconds between two looks, and between two looks for the results.
LOOK = 2.0
POLL = 1.0


class Note(NamedTuple):
    """What is written down of a job: its epoch, and the generations of its stores, None while it is being opened."""

    epoch: int
    generations: tuple[int, ...] | None


class End(NamedTuple):
    """How a job ended: `RUNNING` with results, `FAILED` or `CANCELLED` with a reason."""

    status: int
    reason: bytes = b""
    results: list[Any] | None = None


class Client:
    """One life of a client.

    Parameters
    ----------
    world : World
        Where it lives.
    name : str
        Of this life; another has another.
    """

    def __init__(self, world: "World", name: str) -> None:
        self._world = world
        self._name = name
        self._shards = len(world.records.shards)
        self._sessions = 0
        self._session = self._new_session()
        self._next_look = 0.0

    def live(self) -> Steps:
        """See the job through to its end, and tell the world which it was."""
        world = self._world
        if world.note is None:
            generations = tuple(world.records.generations)
            world.note = Note(0, None)
            try:
                yield from launch.launch(world.plan, self._session, world.costs)
                world.note = Note(0, generations)
            except Ended:
                pass  # a shard failed over meanwhile: to be opened again
            self._next_look = world.now + LOOK
        end = None
        while end is None:
            try:
                end = yield from self._go_on()
            except Ended:
                # Something came between two requests: a fail-over, or the end of the job. The next round sees which.
                yield fx.Pause(POLL / 10)
        world.ending = True
        yield from launch.release(self._session)
        world.close(end)

    def _go_on(self) -> Generator[fx.Effect, Any, End | None]:
        """Do what there is to do once; return the end if it is there."""
        world = self._world
        assert world.note is not None
        if world.cancelled:
            yield from launch.cancel(self._shards, m.CANCELLED, b"cancelled by the user")
            return End(m.CANCELLED, b"cancelled by the user")
        if world.note.generations != tuple(world.records.generations):
            yield from self._repair()
        if world.now >= self._next_look:
            self._next_look = world.now + LOOK
            status = yield from watch.look(self._shards, LOOK, world.known_dead(), world.late())
            if status == m.GONE:
                yield from self._repair()
            elif status != m.RUNNING:
                return (yield from self._ended())
        reply = yield fx.Ask(0, m.Probe((m.CLIENT,)))
        if reply.status != m.RUNNING:
            return (yield from self._ended())
        if reply.body[0].state in (states.READY, states.CLAIMED):
            return (yield from self._collect())
        yield fx.Pause(POLL)
        return None

    def _collect(self) -> Generator[fx.Effect, Any, End | None]:
        """Return the results, or have those computed again that are nowhere."""
        outputs = self._world.plan.outputs
        inputs = yield from launch.collect(self._world.plan, self._session)
        if inputs is None:
            # An earlier life took them; what was done then is still known.
            yield from self._repair()
            return None
        results: dict[int, Any] = {}
        for task, attempt, value in inputs:
            if value.kind == m.INLINE:
                results[task] = value.body
            elif value.kind == m.STORED:
                (found,) = yield fx.Fetch([(task, attempt)])
                if found is not fx.LACKING:
                    results[task] = found
        lacking = [task for task in outputs if task not in results]
        if lacking:
            yield from self._repair(lacking)
            return None
        return End(m.RUNNING, b"", [results[task] for task in outputs])

    def _ended(self) -> Generator[fx.Effect, Any, End | None]:
        """Return how the job ended, as the first shard has it that knows; None if none does any more."""
        for shard in range(self._shards):
            reply = yield fx.Ask(shard, m.Probe())
            if reply.status in (m.FAILED, m.CANCELLED):
                return End(reply.status, reply.reason)
        yield from self._repair()
        return None

    def _repair(self, without: Collection[int] = ()) -> Steps:
        world = self._world
        assert world.note is not None
        epoch = world.note.epoch + 1
        self._session = self._new_session()
        generations = tuple(world.records.generations)
        world.note = Note(epoch, None)
        world.happened["repair"] += 1
        yield from watch.repair(world.plan, self._session, epoch, without)
        world.note = Note(epoch, generations)

    def _new_session(self) -> Session:
        self._sessions += 1
        return Session(f"{self._name}.{self._sessions}", self._world.costs.lease, self._shards)

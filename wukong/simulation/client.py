"""The client of a simulated job: it launches, watches, repairs, collects and releases, with the steps of live clients.

A client that comes back, or attaches, has nothing but the job's name. What it needs to know besides is a note of a few
bytes, kept where the plan is: the epoch that was opened last, by whom and when, and of which generation the stores were
then. A note that was begun and not finished says that the job has to be opened again, unless somebody is at it. Who
has the end of the job says so in the note before it releases the job; whoever finds that releases it once more.
"""

from collections.abc import Collection, Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from wukong.errors import TaskLost
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
    """What is written down of a job. It changes as a whole.

    Attributes
    ----------
    epoch : int
        The last that somebody began to open.
    generations : tuple of int, or None
        Of its stores before that; None while it is being opened.
    by, since : str, float
        Who opens it, and since when.
    """

    epoch: int
    generations: tuple[int, ...] | None
    by: str
    since: float


class End(NamedTuple):
    """How a job ended: `RUNNING` with results, `FAILED` or `CANCELLED` with a reason; `GONE`: another client knows."""

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
    line : int
        Which of the clients it is, in any life.
    """

    def __init__(self, world: "World", name: str, line: int) -> None:
        self._world = world
        self._name = name
        self._line = line
        self._shards = len(world.records.shards)
        self._sessions = 0
        self._session = self._new_session()
        self._next_look = 0.0
        self._taken: float | None = None  # since when somebody else seems to have the results

    def live(self) -> Steps:
        """See the job through to its end, and tell the world which it was."""
        world = self._world
        if world.note is None:
            generations = self._begin(0)
            try:
                yield from launch.launch(world.plan, self._session, world.costs)
                self._opened(0, generations)
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
            except TaskLost:
                end = None if world.over else End(m.FAILED, b"TaskLost")
        world.over = True
        world.deliver(end)
        yield from launch.release(self._session)
        world.close()

    def _go_on(self) -> Generator[fx.Effect, Any, End | None]:
        """Do what there is to do once; return the end if it is there."""
        world = self._world
        assert world.note is not None
        if world.over:
            return End(m.GONE)
        if world.cancelled == self._line:
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
        world = self._world
        inputs = yield from launch.collect(world.plan, self._session)
        if inputs is None:
            # Somebody else took them, and may be at it, or is dead; what was done is still known then.
            self._taken = world.now if self._taken is None else self._taken
            if world.now < self._taken + world.costs.lease:
                yield fx.Pause(POLL)
            else:
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
        lacking = [task for task in world.plan.outputs if task not in results]
        if lacking:
            yield from self._repair(lacking)
            return None
        return End(m.RUNNING, b"", [results[task] for task in world.plan.outputs])

    def _ended(self) -> Generator[fx.Effect, Any, End | None]:
        """Return how the job ended, as the first shard has it that knows; None if none does any more."""
        for shard in range(self._shards):
            reply = yield fx.Ask(shard, m.Probe())
            if reply.status in (m.FAILED, m.CANCELLED) and reply.reason != watch.REPAIRING:
                return End(reply.status, reply.reason)
        yield from self._repair()
        return None

    def _repair(self, without: Collection[int] = ()) -> Steps:
        """Open the job again, unless it is over, or another client does so and may be alive."""
        world, note = self._world, self._world.note
        assert note is not None
        if world.over or (
            note.generations is None and note.by != self._name and world.now < note.since + world.costs.lease
        ):
            yield fx.Pause(POLL)
            return
        self._session = self._new_session()
        self._taken = None
        epoch = note.epoch + 1
        generations = self._begin(epoch)
        world.happened["repair"] += 1

        def forgot() -> list[int]:
            world.records.witness.remind()
            known = note.generations or ()
            return [s for s, now in enumerate(world.records.generations) if known[s : s + 1] != (now,)]

        yield from watch.repair(world.plan, self._session, epoch, without, forgot)
        self._opened(epoch, generations)

    def _begin(self, epoch: int) -> tuple[int, ...]:
        """Note that an epoch is being opened; return of which generation the stores are."""
        world = self._world
        world.note = Note(epoch, None, self._name, world.now)
        return tuple(world.records.generations)

    def _opened(self, epoch: int, generations: tuple[int, ...]) -> None:
        """Note that an epoch is open, unless somebody opens a later one."""
        world = self._world
        if world.note is not None and world.note.epoch == epoch:
            world.note = world.note._replace(generations=generations)

    def _new_session(self) -> Session:
        self._sessions += 1
        return Session(f"{self._name}.{self._sessions}", self._world.costs.lease, self._shards)

"""A pack: worker processes of this client, the work they are offered, and what becomes of it when they die.

    pack = Pack(4)                 returns at once; what is sent before a worker exists waits in its socket
    pack.serve("op", handler)      answers what workers ask and tell
    pack.attach(source)            has work for workers that are idle
    pack.wake()                    there may be work now
    pack.wait(ready, timeout)      waits, and reads and serves meanwhile (`pump`)

How workers come to be, are heard, and end is the subject of `processes`, what they do of `worker`.
"""

import atexit
import os
import select
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from wukong.cost import PROCESSES
from wukong.errors import ClientClosed, ConfigError, WorkerLost
from wukong.platforms.local import locks, output
from wukong.platforms.local.known import Parcel
from wukong.platforms.local.member import Member, Source, Work, lost
from wukong.platforms.local.processes import Processes
from wukong.platforms.local.processors import threads_each, workers_here
from wukong.platforms.local.pump import Pump
from wukong.platforms.local.surroundings import Capture
from wukong.platforms.local.watch import Watch

if TYPE_CHECKING:
    from wukong.storage.arena import Arena

__all__ = ["DEATHS", "Member", "Pack", "Source", "Work"]

#: Workers that may die one after the other without any work being done in between.
DEATHS: Final = 30

Answer: TypeAlias = tuple[Any, Sequence[int]] | None


class Pack:
    """A keeper and its workers. Safe to use from any thread.

    Parameters
    ----------
    workers : int, optional
        As many as there are processors, if not given.
    memory_limit : int, optional
        See `Arena`.

    Attributes
    ----------
    lock : Lock
        Held while sources are asked; they guard what they hold with it.
    workers : int
    deaths : int
        Workers that died since anything was done; sources that hear of work done set it to 0.

    Raises
    ------
    ConfigError
        If this platform has no process granules.
    """

    def __init__(self, workers: int | None = None, memory_limit: int | None = None) -> None:
        if not hasattr(os, "eventfd") or not hasattr(select, "epoll"):
            raise ConfigError("granules='processes' needs Linux; on this platform use granules='threads'")
        self.workers = workers or workers_here()
        self._share = max(1, workers_here() // self.workers)
        self._capture = Capture(self._share)
        self._memory_limit = memory_limit
        self._arena: Arena | None = None
        self._owner = os.getpid()
        self._closed = False
        self.deaths = 0
        self._broken: WorkerLost | None = None
        self._idle: list[Member] = []
        self._sources: dict[Source, int] = {}
        self._looks: dict[Source, Callable[[], None]] = {}
        self._handlers: dict[str, Callable[..., Answer]] = {
            "said": output.say,
            "logged": output.log,
            "locks.file": locks.lend,
        }
        self._pump = Pump("wukong-reader")
        self.lock = self._pump.lock
        self._processes = Processes(self._pump, self._serve, self._came, self._bury, self._start_again)
        keeping = self._processes
        looks = lambda: list(self._looks.values())  # noqa: E731
        self._watch = Watch(self._busy, self.kill, looks, keeping.expected, keeping.kill_keeper, PROCESSES.lease)
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        _live.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def arena(self) -> "Arena":
        """Memory that its processes share."""
        if self._arena is None:
            from wukong.storage.arena import Arena
            from wukong.storage.holder import serve

            with self.lock:
                if self._arena is None:
                    self._arena = Arena(self._memory_limit)
                    self._handlers.update(serve(self._arena))
        return self._arena

    @property
    def usable(self) -> bool:
        """Whether it takes work: it is not closed, and its workers have not all died whenever they began."""
        return not self._closed and self._broken is None

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._closed

    @property
    def ready(self) -> bool:
        """Whether any worker is there."""
        return any(member.pid is not None for member in list(self._processes.members.values()))

    @property
    def idle(self) -> int:
        """How many workers have nothing to do."""
        return len(self._idle)

    @property
    def keeper(self) -> int:
        """The process number of the keeper."""
        return self._processes.keeper_pid

    @property
    def pids(self) -> list[int]:
        """The process numbers of the workers that are there."""
        return [member.pid for member in list(self._processes.members.values()) if member.pid is not None]

    def surroundings(self) -> Parcel:
        """Return what code finds around it in this process now, for a worker to apply."""
        return self._capture()

    def serve(self, op: str, handler: Callable[..., Answer]) -> None:
        """Have what workers ask and tell under a name handled.

        Parameters
        ----------
        op : str
        handler : callable
            ``handler(worker, fds, *args) -> None | (reply, fds)``, called by whoever reads, with no lock held. The
            descriptors it is given are its own; those it returns stay its own, too. What it raises is raised by `ask`;
            from a message that nobody waits for, it costs the worker its life.
        """
        self._handlers[op] = handler

    def attach(self, source: Source, look: Callable[[], None] | None = None) -> None:
        """Offer a source's work to idle workers, from now on.

        Parameters
        ----------
        source : Source
        look : callable, optional
            Called now and then, in a thread of the pack's own and with no lock held, while workers are at work.
        """
        with self.lock:
            self.check()
            self._sources[source] = 0
            if look is not None:
                self._looks[source] = look
            self.offer()

    def detach(self, source: Source) -> None:
        """Offer no more of it; what workers are at they finish."""
        with self.lock:
            self._sources.pop(source, None)
            self._looks.pop(source, None)

    def at_work(self, source: Source) -> list[Member]:
        """Return the workers that are at work for a source."""
        return [member for member in list(self._processes.members.values()) if member.source is source]

    def wake(self) -> None:
        """Offer work to idle workers, and let those who wait look again. Does nothing if no workers are left."""
        if self.usable:
            with self.lock:
                self.offer()
                self._pump.look()

    def offer(self) -> None:
        """Offer work to idle workers. The lock must be held."""
        # The one that was at work last is the warmest.
        for member in self._idle[::-1]:
            if not self._offer(member):
                break

    def check(self) -> None:
        """Raise if there are no workers for this process.

        Raises
        ------
        ClientClosed
            If the pack is closed, or this process was forked from the one it belongs to.
        WorkerLost
            If workers died whenever they began; see `DEATHS`.
        """
        if self._owner != os.getpid():
            raise ClientClosed(
                f"this client belongs to process {self._owner}, from which this one ({os.getpid()}) was forked; "
                "its workers do not hear us. Make a client of your own here, or start processes with 'spawn'."
            )
        if self._closed:
            raise ClientClosed("this client is closed, and its workers are gone. Make a new one.")
        if self._broken is not None:
            raise WorkerLost(*self._broken.args)

    def wait(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until something is so, and read and serve meanwhile; see `Pump.wait`.

        Raises
        ------
        ClientClosed, WorkerLost
            See `check`.
        """
        if self._owner != os.getpid():
            self.check()
        so = self._pump.wait(ready, timeout)
        if not so:
            self.check()
        return so

    def kill(self, member: Member) -> None:
        """End a worker and what it has started; its work is lost."""
        self._processes.kill(member)

    def close(self) -> None:
        """End every process and wait until they are gone. May be called again."""
        with self.lock:
            if self._closed or self._owner != os.getpid():
                return
            self._closed = True
        self._watch.end()
        self._pump.close()
        self._processes.close()
        for member in self._processes.members.values():
            if member.work is not None:
                member.work.lost(lost(member, "the client was closed"))
            os.close(member.tickets)
        for source in list(self._sources):
            source.abandon(ClientClosed("the client was closed before this was run"))
        self._pump.release()
        if self._arena is not None:
            self._arena.close()

    def _start(self) -> None:
        self._processes.start({**os.environ, **threads_each(self._share, os.environ)})
        for _ in range(self.workers):
            self._idle.append(self._processes.fork())

    def _start_again(self) -> None:
        with self.lock:
            if not self._closed:
                try:
                    self._start()
                except OSError as error:
                    self._give_up(f"the process that keeps them was killed, and another cannot be started ({error}).")

    def _forget(self) -> None:
        # In a forked child.
        # Whoever had a lock is not here. As the standard library does it for its own.
        self.lock._at_fork_reinit()  # type: ignore[attr-defined]
        if self._arena is not None:
            self._arena.forget()
        if not self._closed:
            self._closed = True
            self._processes.forget()
            self._pump.release()

    # Offering work. The lock is held.

    def _offer(self, member: Member) -> bool:
        """Give an idle worker something to do, if there is anything."""
        sources = self._sources
        for source in sources if len(sources) == 1 else sorted(sources, key=sources.__getitem__):
            work = source.next(member)
            if work is not None:
                self._idle.remove(member)
                self._sources[source] += 1
                member.work, member.source = work, source
                if self._watch.rests:
                    self._watch.begin()
                self._processes.send(member, work.message, work.fds)
                return True
        return False

    def _busy(self) -> list[Member]:
        return [member for member in list(self._processes.members.values()) if member.work is not None]

    def _through(self, member: Member) -> Work:
        """Note that a worker is through with its work, which is returned."""
        work, source = member.work, member.source
        assert work is not None
        member.work = member.source = None
        if source in self._sources:
            self._sources[source] -= 1
        return work

    # What workers say. No lock is held.

    def _serve(self, member: Member, message: tuple[Any, ...], fds: list[int]) -> None:
        kind = message[0]
        if kind == "returned":
            with self.lock:
                self.deaths = 0
                work = self._through(member)
            try:
                work.returned(fds, *message[1:])
            finally:
                with self.lock:
                    # What was served may have waited, and read of its death.
                    if not member.gone:
                        self._idle.append(member)
                        self._offer(member)
        elif kind == "tell":
            self._handler(message[1])(member, fds, *message[2])
        else:
            try:
                answer = self._handler(message[1])(member, fds, *message[2])
            except Exception as error:
                self._processes.send(member, ("raised", error), ())
            else:
                reply, fds_back = answer or (None, ())
                self._processes.send(member, ("answer", reply), fds_back)

    def _handler(self, op: str) -> Callable[..., Answer]:
        if op not in self._handlers and op.startswith("arena."):
            # A worker may come to it first.
            _ = self.arena
        return self._handlers[op]

    def _came(self) -> None:
        with self.lock:
            self.offer()
            self._pump.look()

    def _bury(self, members: Sequence[Member]) -> None:
        """Let go of workers that are dead, and have others in their places."""
        with self.lock:
            if self._closed:
                return
            self.deaths += 1
            works = []
            for member in members:
                self._processes.remove(member)
                if member in self._idle:
                    self._idle.remove(member)
                works.append(None if member.work is None else self._through(member))
            if self.deaths > DEATHS:
                why = f"{self.deaths} died one after the other, and nothing was done in between"
                self._give_up(f"{why}; the last: {lost(members[0])}")
            try:
                while len(self._processes.members) < self.workers and self._broken is None:
                    # What the dead were at is for others, who need not be born first.
                    self._idle.insert(0, self._processes.fork())
            except OSError as error:
                self._give_up(f"another cannot be started ({error}); the last: {lost(members[0])}")
        for member, work in zip(members, works, strict=True):
            if self._arena is not None:
                self._arena.gone(member)
            if work is not None:
                work.lost(lost(member))
            os.close(member.tickets)
        if self._broken is not None:
            for source in list(self._sources):
                source.abandon(self._broken)
        with self.lock:
            if not self._closed:
                self.offer()
                self._pump.look()

    def _give_up(self, why: str) -> None:
        self._broken = WorkerLost(
            f"the workers of this client are gone: {why} "
            "Look for what kills them, such as a memory limit, and make a new client."
        )
        self._pump.stop()


_live: weakref.WeakSet[Pack] = weakref.WeakSet()


def _close_all() -> None:
    for pack in list(_live):
        pack.close()


def _forget_in_child() -> None:
    for pack in list(_live):
        pack._forget()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)

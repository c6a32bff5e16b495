"""Those who work on one job: threads of the client, processes, or both. Not what there is to do, nor in which order."""

import threading
from collections.abc import Callable, Hashable, Mapping
from math import inf
from typing import TypeAlias

from wukong.cost import PROCESSES
from wukong.errors import CannotTravel, ValueTooLarge
from wukong.executor.job import Job
from wukong.plan.codec import Encoded, encode
from wukong.plan.reading import Plan
from wukong.platforms.local import threads
from wukong.platforms.local.admission import Admission
from wukong.platforms.local.board import Posted
from wukong.platforms.local.contention import Contention
from wukong.platforms.local.pack import Pack
from wukong.platforms.local.placement import ByKind, InProcesses, Placement
from wukong.protocol import messages as m
from wukong.scheduler.adaptive import Sorting, verdicts
from wukong.scheduler.annotations import Annotation
from wukong.scheduler.recovery import USUAL, Terms
from wukong.scheduler.service import Opening, Service
from wukong.storage.arena import Arena
from wukong.storage.values.arena import ArenaValueStore

#: Returns a pack for so many workers: one that is there, or, if `start`, a new one; else None.
Packs: TypeAlias = Callable[[int, bool], Pack | None]


class Company:
    """Those who work on one job.

    Parameters
    ----------
    plan : Plan
        Of the job.
    workers : int
        How many work on it at once.
    granules : str
        ``threads``; ``processes``; or ``auto``, where functions that hold the interpreter move to processes.
    packs : Packs, optional
        Where processes come from; without, ``auto`` means threads.
    notes : mapping of int to Annotation, optional
        What is said of some tasks. These are started from the board, and by nobody else.
    admission : Admission, optional
        The books of what they need.
    terms : Terms, optional
        What is started again if processes die or straggle.

    Attributes
    ----------
    posted : Posted
        The job's place on the board.
    beside : list of hashable
        Names of functions that run in this process, but not in an executor of the job.
    published : callable
        Called when the parts of the plan have been put where executors find them, each time.
    """

    def __init__(
        self,
        plan: Plan,
        workers: int,
        granules: str,
        packs: Packs | None,
        notes: Mapping[int, Annotation] | None = None,
        admission: Admission | None = None,
        terms: Terms = USUAL,
    ) -> None:
        self.beside: list[Hashable] = []
        self.published: Callable[[], object] = _nobody
        self._plan = plan
        self._packs = packs
        self._granules = granules
        self._terms = terms
        self._encoded: Encoded | None = None
        self._sorting: Sorting | None = None
        self._service: Service | None = None
        self._pack: Pack | None = None
        # Whoever looks may let processes in while the job ends.
        self._changing = threading.Lock()
        self._contention = Contention()
        self._ended = False
        self._job: Job
        self._url: str | None = None
        notes = notes or {}
        pinned = {task: note.workers == "processes" for task, note in notes.items() if note.workers is not None}
        needs = {task: note.memory for task, note in notes.items() if note.memory}
        # When a task that needs memory is through, so is the invocation.
        self._apart = frozenset([*notes, *(child for task in needs for child in plan.children(task))])
        placement = Placement()
        if granules == "processes":
            placement = InProcesses(pinned)
        elif granules == "auto" and packs is not None:
            placement = ByKind(plan.kind, self._stuck, pinned)
        self.posted: Posted = threads.crew.post(workers, placement, needs, admission if needs else None)

    def begin(self, job: Job, url: str | None, encoded: Encoded | None) -> None:
        """Open the job to everybody.

        Parameters
        ----------
        job : Job
            With the posted job as its invoker.
        url : str or None
            Where processes find its stores; None if the client has them.
        encoded : Encoded or None
            The plan, if it is packed already.
        """
        self._job, self._url, self._encoded = job, url, encoded
        placement = self.posted.placement
        if isinstance(placement, ByKind):
            self._sorting = Sorting(self._plan, placement, job, self.posted.workers, self._pays_at_once, self._let_in)
        if isinstance(placement, ByKind) or self._apart:
            apart, away = self._apart, placement.away
            job.belongs = lambda task: not (away(task) or task in apart)
        threads.crew.open(self.posted, job)
        if url is not None:
            self.publish()
        if isinstance(placement, InProcesses) or any(placement.pinned.values()):
            for task, reason in self._stuck().items():
                # With granules="auto" nothing else is away yet.
                if placement.away(task):
                    raise CannotTravel(f"task {self._plan.key(task)!r} is to run in a process: {reason}")
            self._let_in()
        if self._sorting is not None:
            self._sorting.sort_known()

    def work(self) -> None:
        """Work on the job until it is over; raise what it failed with."""
        threads.crew.work(self.posted)

    def look(self) -> bool:
        """Look whether functions at work hold the interpreter, and move them; return whether to come again.

        May take a nap, so it is for a thread that has nothing else to do.
        """
        posted, sorting = self.posted, self._sorting
        if sorting is None or posted.over:
            return False
        at_work = self._job.at_work
        kind = self._plan.kind

        def names() -> list[Hashable]:
            return [*self.beside, *(sorting.name(kind(task)) for task in list(at_work.values()))]

        if verdicts.asks(names()):
            verdicts.look(names)
        with self._changing:
            if self._ended:
                return False
            before = posted.placement.note.version
            contended = self._contention.look({who: sorting.name(kind(task)) for who, task in at_work.copy().items()})
            if contended is not None:
                sorting.accuse(contended)
            for task in list(at_work.values()):
                if task not in posted.placement.pinned:
                    sorting.sort(kind(task))
            if posted.placement.note.version != before:
                posted.sort_again()
        return True

    def at_work(self) -> list[tuple[int, str]]:
        """Return the tasks that run now, each with where."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        here = [(task, f"thread {names.get(me, me)}") for me, task in self._job.at_work.copy().items()]
        return here if self._service is None else [*here, *self._service.at_work()]

    def executors(self) -> list[str]:
        """Return the names of the executors in processes."""
        return [] if self._service is None else self._service.recovery.executors

    def dead(self) -> list[str]:
        """Return the names of the executors whose worker processes died."""
        return [] if self._service is None else self._service.recovery.dead

    def end(self) -> None:
        """Close the job; executors still at work notice with their next request."""
        with self._changing:
            self._ended = True
            if self._sorting is not None:
                self._sorting.remember()
            if self._service is not None:
                self._service.close()
            threads.crew.take_down(self.posted)

    def drop(self) -> None:
        """Let those who work on it elsewhere know that tasks were dropped."""
        if (service := self._service) is not None:
            service.drop()

    @property
    def arena(self) -> Arena | None:
        """Where processes leave values of the job; None if there are none, or it has a store."""
        return None if self._pack is None or self._url is not None else self._pack.arena

    @property
    def where(self) -> str:
        """Who worked on it, for people."""
        if self._service is None:
            return f"{self.posted.workers} threads"
        both = "" if self._sorting is None else "threads and "
        return f"{self.posted.workers} {both}processes"

    @property
    def recovered(self) -> tuple[str, ...]:
        """What had to be started again, for people; nothing if nothing did."""
        return () if self._service is None else self._service.recovery.told()

    @property
    def reasons(self) -> dict[Hashable, str]:
        """For functions about which anything was found out, why they run where they do."""
        return {} if self._sorting is None else self._sorting.explained()

    # --- processes ----------------------------------------------------------------------------------------------------

    def _let_in(self) -> None:
        """Let processes take part, from the first time this is called."""
        if self._service is not None:
            return
        assert self._packs is not None
        self._pack = pack = self._packs(self.posted.workers, True)
        assert pack is not None
        if self._url is None:
            self._job.values = ArenaValueStore(pack.arena, self._job.name)
            self.publish()
        assert self._encoded is not None
        # Deaths are counted by the client, which knows what a worker was at, and nobody lapses who is not dead.
        costs = PROCESSES.replace(lease=inf, attempts=m.EPOCH) if self._url is None else self._job.costs
        opening = Opening(self._encoded.manifest, self._url, costs, self._job.observer is not None, self._apart)
        self._service = Service(pack, self.posted, opening, self._plan, self.publish, self._terms)
        self._service.open()

    def _pays_at_once(self) -> bool:
        """Whether nothing has to be started before a process can work."""
        assert self._packs is not None
        pack = self._packs(self.posted.workers, False)
        return pack is not None and pack.ready

    def _stuck(self) -> dict[int, str]:
        """Pack the plan for processes; return the tasks that cannot travel."""
        if self._encoded is None:
            self._encoded = encode(self._plan, lenient=True)
        return self._encoded.stuck

    def publish(self) -> None:
        """Put the parts of the plan where executors find them."""
        assert self._job.values is not None, "plans are published where there is a store to keep them"
        assert self._encoded is not None
        for digest, frame in self._encoded.blobs.items():
            try:
                self._job.values.put(digest, frame.parts)
            except ValueTooLarge as error:
                error.add_note("wukong: it is an argument in the graph itself; make it inside a task, or in parts")
                raise
        if self._url is None:
            # Nobody asks for them again: this process does not forget.
            self._encoded.blobs.clear()
        elif self.posted.over:
            # An executor that came late missed them, as the values of the job had been cleared.
            self._job.values.delete(list(self._encoded.blobs))
        else:
            self.published()


def _nobody() -> None:
    return None

"""One compute on the crew: what is left of a walk, compiled to a plan, launched, worked on, and collected.

Tasks before `index` are done and their values at hand; task `index` runs already, in the client, if `index` is given.
"""

from collections.abc import Callable, Collection, Hashable, Mapping
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import Any, Self
from weakref import WeakMethod

from wukong.cost import Estimates
from wukong.errors import JobCancelled, JobStalled, StoreError
from wukong.events import Observer, Run, Spans
from wukong.executor.alone import Walk, explain
from wukong.executor.effects import Dropped
from wukong.executor.job import Job
from wukong.ids import new_job
from wukong.plan.codec import encode
from wukong.plan.view import PlanView
from wukong.platforms.local.admission import Admission
from wukong.protocol import messages as m
from wukong.scheduler import stores
from wukong.scheduler.adaptive import name_of
from wukong.scheduler.annotations import Annotation
from wukong.scheduler.company import Company, Packs
from wukong.scheduler.course import Course, Running
from wukong.scheduler.dask.graphs import finalisers
from wukong.scheduler.dask.lower import lower
from wukong.scheduler.dask.nodes import data, evaluate, functions_of
from wukong.scheduler.keeping import Keeping
from wukong.scheduler.launch import Client
from wukong.scheduler.left import Left, Values
from wukong.scheduler.note import NAME, Note, bare, owner
from wukong.scheduler.recovery import USUAL, Terms
from wukong.scheduler.trace import in_company, put_together
from wukong.scheduler.watch import repair
from wukong.storage.counters import Counters


class Compiled:
    """One compute on the crew; a context manager that leaves nothing of the job behind.

    Parameters
    ----------
    walk : Walk
        The tasks.
    values : dict
        Values at hand; the results are added to it. Of `Values`, those that are left stay where they are.
    workers : int
        How many work on it, the client included.
    store : str or None
        Where records and values go; None keeps them in this process.
    observer : Observer or None
        Told of each task.
    index : int
        The task of the walk that runs already; -1 if none does.
    granules : str
        ``threads``; ``processes`` for all tasks; or ``auto``, where functions of which it is known go to processes.
    packs : callable, optional
        Returns a pack for so many workers, and starts it if need be.
    admission : Admission, optional
        The books of what annotated tasks need, if any are.
    name : str, optional
        Of the job, if it has been given one. Then, over a store, it is noted what another client needs to go on.
    terms : Terms, optional
        What is started again if processes die or straggle.
    note : Note, optional
        Of a job that another client has begun, and that is gone on with.
    """

    def __init__(
        self,
        walk: Walk,
        values: dict[Any, Any],
        workers: int,
        store: str | None,
        observer: Observer | None,
        index: int = -1,
        granules: str = "threads",
        packs: Packs | None = None,
        admission: Admission | None = None,
        name: str = "",
        terms: Terms = USUAL,
        note: Note | None = None,
    ) -> None:
        self._note = note
        self._walk = walk
        self._values = values
        self._left = values.left if isinstance(values, Values) else {}
        self._index = index
        begun = max(index, 0)
        left = dict(zip(walk.keys[begun:], walk.nodes[begun:], strict=True))
        self._running: Hashable = walk.keys[index] if index >= 0 else None
        # What puts the whole result together runs where the result is wanted.
        self._finalisers = {key: left.pop(key) for key in finalisers(walk) if key in left and key != self._running}
        reads = dict(zip(walk.keys, walk.inputs, strict=True)) if self._finalisers else {}
        inputs = [read for key in self._finalisers for read in reads[key]]
        self._asked = dict.fromkeys([*(key for key in walk.wanted if key not in self._finalisers), *inputs])
        self._outputs = [key for key in self._asked if key in left]
        known = values.known() if isinstance(values, Values) else dict(values)
        given = dict(known) if index < 0 else {**known, self._running: None}
        if store is not None:
            # Nothing is at hand where executors run elsewhere, so it becomes part of the plan.
            left.update({key: data(key, values[key]) for key in known})
            given = {}
        once = {key for key, note in walk.notes.items() if note.once}
        # What is said of a task is not said of those that it would be fused with.
        if note is None:
            plan = lower(left, self._outputs, given, fuse=observer is None and not walk.notes, once=once)
        else:
            self._outputs, plan = note.outputs, note.plan
        self._plan = plan
        self._numbers = {plan.key(task): task for task in plan.given}
        self._given = {self._numbers[key]: value for key, value in known.items() if key in self._numbers}
        notes: Mapping[int, Annotation] = {} if note is None else note.notes
        if walk.notes:
            notes = {task: said for task in plan.tasks if (said := walk.notes.get(plan.key(task))) and said.apart}
        self._company = Company(plan, workers, granules, packs, notes, admission, terms)
        self._notes, noted = notes, bool(name) and store is not None
        name = name or new_job()
        self._stores = stores.in_process() if store is None else stores.at(store, name)
        self._before = self._stores.counters()
        # What is to run in this process need not travel, if it need not be published either.
        lenient = store is None and any(note.workers == "threads" for note in notes.values())
        if note is None:
            self._encoded = None if store is None and granules != "processes" else encode(plan, lenient=lenient)
        else:
            assert self._stores.values is not None
            self._encoded = note.published(self._stores.values)
        runnable: Any = plan
        if store is not None and self._encoded is not None:
            # The company knows the job, and the job its plan, which would keep both alive.
            publish = WeakMethod(self._company.publish)

            def publish_again() -> None:
                if (there := publish()) is not None:
                    there()

            runnable = PlanView(self._encoded.manifest, stores.parts_of(name, self._stores.values, publish_again))
        self._job = Job(
            name,
            runnable,
            self._stores.control,
            self._stores.values,
            self._stores.costs,
            Estimates(self._stores.costs.unknown),
            self._stores.pack,
            self._stores.unpack,
            self._company.posted,
            observer,
        )
        self._client = Client(self._job, plan)
        self._keeping: Keeping | None = None
        if store is not None:
            company = self._company
            self._keeping = Keeping(
                self._job,
                self._client,
                company.posted,
                company.executors,
                company.dead,
                self._stores.generation,
                company.publish,
                0 if note is None else note.epoch + 1,
            )
        if noted:
            write = WeakMethod(self._write)
            self._company.published = lambda: (there := write()) is not None and there()
        self._joined = Spans()
        self._started = False
        self._beside: list[Running] = []
        self._joining = False
        self._course: Course | None = None
        self._dropped: set[int] = set()
        self._job.dropped = self._dropped
        self._task_of: dict[Hashable, int] = {}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._started:
            return
        why = self._company.posted.error
        if self._keeping is not None:
            self._keeping.end()
        status = m.CANCELLED if why is None or isinstance(why, JobCancelled) else m.FAILED
        self._company.end()
        steps = [self._client.release]
        if error is not None:
            steps.insert(0, lambda: self._client.cancel(status, type(error).__qualname__.encode()))
        if self._job.values is not None:
            steps.append(self._job.values.clear)
        try:
            _let_go(steps, error)
        except KeyboardInterrupt as interrupt:
            # What it broke off is begun anew, or the rest would stay in the store for a day.
            _let_go(steps, interrupt)
            raise

    def start(self) -> None:
        """Open the job and have its first executors invoked."""
        self._started = True
        if self._running is not None:
            self._company.beside = [name_of(functions_of(self._walk.nodes[self._index]))]
        self._company.begin(self._job, self._stores.url, self._encoded)
        if self._course is not None:
            # Before the first task begins, or whoever ends it then is not told what runs.
            self._attend(self._course)
        if self._note is None or self._keeping is None:
            self._client.launch()
        else:
            self._client.anew(partial(repair, epoch=self._keeping.epoch))
        if self._keeping is not None:
            self._keeping.begin()
        if self._given:
            given, self._given = self._given, {}
            self._client.supply(given)

    def _write(self) -> None:
        """Note what another client needs to go on."""
        walk, values, encoded = self._walk, self._values, self._encoded
        assert self._keeping is not None
        assert encoded is not None
        assert self._job.values is not None
        inputs = dict(zip(walk.keys, walk.inputs, strict=True))
        keys = list(self._finalisers)
        rest = Walk(keys, [self._finalisers[key] for key in keys], [inputs[key] for key in keys], {}, walk.wanted)
        known = {key: values[key] for key in self._asked if key not in self._outputs and key in (*values, *self._left)}
        plan = self._plan if self._note else bare(self._plan)
        epoch, digests = self._keeping.epoch, list(encoded.blobs)
        note = Note(owner(), epoch, plan, self._outputs, rest, known, self._notes, encoded.manifest, digests)
        note.write(self._job.values)
        if self._company.posted.over:
            # The values of the job may have been cleared while it was written.
            self._job.values.delete([NAME])

    def finish(self, value: Any = None) -> Run:
        """Work on the job to its end and add the results to the values.

        Parameters
        ----------
        value : object
            What the task gave that ran already.

        Raises
        ------
        BaseException
            What a task raised, with a note that names the task.
        """
        values = self._values
        self._company.beside, self._beside, self._joining = [], [], True
        for key in [*values, *self._left]:
            if key not in self._asked:
                del values[key]
        if self._running is not None:
            self._company.posted.driver.tell(self._running, value)
        if self._running in self._asked:
            values[self._running] = value
        if self._running in self._numbers:
            self._client.supply({self._numbers[self._running]: value})
        del value
        if self._outputs:
            self._work()
        for number, (key, node) in enumerate(self._finalisers.items()):
            began = perf_counter()
            self._put_together(key, node)
            self._joined.add(number, began, perf_counter() - began, values[key])
        tally = self._job.tally
        traffic = Counters().plus([self._stores.counters().since(self._before), *self._job.traffic])
        return Run(
            executors=tally.executors,
            becomes=tally.becomes,
            invocations=tally.invocations,
            retries=tally.retried,
            round_trips=traffic.round_trips,
            bytes_sent=traffic.bytes_sent,
            bytes_received=traffic.bytes_received,
            where=f"{self._company.where}, store: {self._stores.name}",
            reasons=(
                *(f"{name}: {reason}" for name, reason in self._company.reasons.items()),
                *(self._keeping.told if self._keeping else ()),
                *self._stores.told(),
                *self._company.recovered,
            ),
            parts=(
                *in_company(self._plan, self._job.spans, self._job.away),
                *put_together(list(self._finalisers), self._walk, self._joined),
            ),
        )

    def look(self) -> bool:
        """See `Company.look`."""
        return self._company.look()

    def fail(self, error: BaseException) -> None:
        """End the job with an error that is none of a task's."""
        self._company.posted.fail(None, error)

    def at_work(self) -> list[Running]:
        """Return the tasks that run now."""
        return [*self._beside, *(Running(self._plan.key(task), where) for task, where in self._company.at_work())]

    def follow(self, course: Course) -> None:
        """End when it does, and let it see how far this is, from the start on; to be called before that."""
        if self._running is not None:
            self._beside = course.at_work()
        self._course = course

    def _attend(self, course: Course) -> None:
        course.at_work, course.working = self.at_work, lambda: self._company.posted.working
        course.done = lambda: max(self._index, 0) + len(self._job.spans) + len(self._job.away)
        course.tell(self.fail)
        course.tell_dropped(self.drop)

        def failing(key: Hashable, error: BaseException) -> None:
            # Whoever waits in another thread need not wait until this one is through with its task.
            self._explain(key, error)
            course.end(error)

        self._company.posted.failing = failing

    def _explain(self, key: Hashable, error: BaseException) -> None:
        if key is not None:
            explain(error, self._walk, key)

    def drop(self, keys: Collection[Hashable]) -> None:
        """Have tasks not begun that nobody needs any more."""
        if not self._task_of:
            self._task_of = {self._plan.key(task): task for task in self._plan.tasks}
        self._dropped.update(task for key in keys if (task := self._task_of.get(key)) is not None)
        for key in keys:
            if key in self._finalisers:
                self._finalisers[key] = data(key, Dropped)
        self._company.drop()

    def _put_together(self, key: Hashable, node: Any) -> None:
        values, observer = self._values, self._job.observer
        try:
            if observer is not None:
                observer.started(key)
            values[key] = evaluate(node, values)
            if observer is not None:
                observer.finished(key, values[key])
        except BaseException as error:
            explain(error, self._walk, key)
            raise

    def _work(self) -> None:
        plan = self._plan
        values = self._values

        def collect() -> dict[int, Any]:
            return self._client.collect(self._company.arena if isinstance(values, Values) and values.leave else None)

        try:
            if self._keeping is not None:
                results = self._keeping.bring_home(self._company.work, collect)
            else:
                self._company.work()
                results = collect()
        except BaseException as error:
            self._explain(self._company.posted.failed, error)
            if isinstance(error, (StoreError, JobStalled)) and (policy := self._stores.evicts()):
                error.add_note(
                    f"wukong: {self._stores.name} removes keys when its memory is full (maxmemory-policy {policy}), "
                    "those of jobs that live as well: set it to noeviction"
                )
            if (course := self._course) is not None:
                course.end(error)
            raise
        for key, task in zip(self._outputs, plan.requested, strict=True):
            value = results[task]
            if type(value) is Left:
                self._left[key] = value
            else:
                values[key] = value


def _let_go(steps: Collection[Callable[[], None]], error: BaseException | None) -> None:
    """Take all of these steps, whichever of them a store refuses; raise that if nothing else went wrong before."""
    refused: StoreError | None = None
    for step in steps:
        try:
            step()
        except StoreError as refusal:
            refused = refused or refusal
    try:
        # A store that does not answer must not hide what went wrong first; a full one takes no more reasons.
        if refused is not None and error is None:
            raise refused
    finally:
        # Its traceback leads here.
        del refused

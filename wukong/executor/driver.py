"""Carrying out the effects of executors on real stores and a real platform: the driver of every local granule."""

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from threading import Lock, get_ident
from time import perf_counter
from typing import Any, Final, TypeAlias

from wukong.errors import StoreFull, ValueTooLarge
from wukong.executor import effects as fx
from wukong.executor.context import Tally
from wukong.executor.core import Executor
from wukong.executor.job import Job
from wukong.executor.session import Ended, Steps
from wukong.ids import new_nonce
from wukong.plan.program import failed_member
from wukong.protocol import messages as m
from wukong.storage.values.base import ValueStore

CarryOut: TypeAlias = dict[type, Callable[["Driver", Any], Any]]


class Driver:
    """Runs executors of one job, from any thread.

    Parameters
    ----------
    job : Job
        The job.

    Attributes
    ----------
    job : Job
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._context = job.context()
        self._observing = Lock()
        self._carry_out: CarryOut = _CARRY_OUT
        if job.observer is not None:
            self._carry_out = {**_CARRY_OUT, fx.Run: Driver._run_observed}

    def enter(self, starts: Sequence[int], nonce: str | None = None, granted: Sequence[m.Grant] | None = None) -> Tally:
        """Run one executor from `starts` to its end and return what it did.

        Parameters
        ----------
        starts : sequence of int
            Ready tasks.
        nonce : str, optional
            Its name, if it was given one.
        granted : sequence of Grant, optional
            What was claimed in that name; see `Executor`.

        Raises
        ------
        StoreError
            If a store does not answer.
        """
        nonce = nonce or new_nonce()
        executor = Executor(nonce, self._context, granted)
        self.job.entered.add(nonce)
        try:
            # It may hear between two requests that the job is over.
            with suppress(Ended):
                self.follow(executor.walk(starts))
        finally:
            self.job.entered.discard(nonce)
        return executor.tally

    def follow(self, steps: Steps) -> Any:
        """Carry out the effects of any steps, and return what they return."""
        carry_out = self._carry_out
        effect: fx.Effect | None = None
        answer: Any = None
        while True:
            try:
                effect = steps.send(answer)
            except StopIteration as end:
                # The traceback of a task that failed leads to this frame, which must not lead back to its error.
                effect = None
                return end.value
            # The last answer may be the only thing that still keeps a large value alive.
            answer = None
            answer = carry_out[type(effect)](self, effect)

    def tell_start(self, key: Hashable) -> None:
        """Tell the observer, if there is one, that somebody else is about to run a task."""
        if self.job.observer is not None:
            with self._observing:
                self.job.observer.started(key)

    def tell(self, key: Hashable, value: Any) -> None:
        """Tell the observer, if there is one, of a task that somebody else ran."""
        if self.job.observer is not None:
            with self._observing:
                self.job.observer.finished(key, value)

    def _ask(self, effect: fx.Ask) -> m.Reply:
        job = self.job
        reply = job.control.apply(job.name, effect.shard, effect.request)
        if reply.status == m.GONE:
            job.invoker.gone()
        return reply

    def _run(self, effect: fx.Run) -> fx.Ran | fx.Raised:
        job, me = self.job, get_ident()
        if job.invoker.over:
            raise Ended(b"nothing more is to begin")
        if effect.task in job.dropped:
            # As long as was expected, so that nobody expects anything else of tasks like it.
            return fx.Ran(fx.Dropped, job.estimates.seconds(job.plan.kind(effect.task)))
        at_work = job.at_work
        # A task may compute something itself, and this thread runs tasks of that meanwhile.
        outer = at_work.get(me)
        at_work[me] = effect.task
        began = perf_counter()
        try:
            value = job.plan.run(effect.task, effect.values)
        except BaseException as error:
            return fx.Raised(error)
        finally:
            if outer is None:
                del at_work[me]
            else:
                at_work[me] = outer
        seconds = perf_counter() - began
        job.spans.add(effect.task, began, seconds, value)
        return fx.Ran(value, seconds)

    def _run_observed(self, effect: fx.Run) -> fx.Ran | fx.Raised:
        observer, key = self.job.observer, self.job.plan.key(effect.task)
        assert observer is not None
        if effect.task in self.job.dropped:
            return self._run(effect)
        try:
            with self._observing:
                observer.started(key)
            ran = self._run(effect)
            if isinstance(ran, fx.Ran):
                with self._observing:
                    observer.finished(key, ran.value)
        except Ended:
            raise
        except BaseException as error:
            return fx.Raised(error)
        return ran

    def _fetch(self, effect: fx.Fetch) -> list[Any]:
        frames = self._store().get([name(*pair) for pair in effect.names])
        return [
            fx.LACKING if frame is None else self.job.load(task, frame)
            for (task, _), frame in zip(effect.names, frames, strict=True)
        ]

    def _put(self, effect: fx.Put) -> None:
        try:
            for task, attempt, frame in effect.frames:
                try:
                    self._store().put(name(task, attempt), frame)
                except (StoreFull, ValueTooLarge) as error:
                    error.add_note(f"wukong: it is the value of task {self.job.plan.key(task)!r}")
                    raise
        finally:
            if self.job.invoker.over:
                # The values of the job may have been cleared while these were written.
                self._store().delete([name(task, attempt) for task, attempt, _ in effect.frames])

    def _drop(self, effect: fx.Drop) -> None:
        self._store().delete([name(*pair) for pair in effect.names])

    def _invoke(self, effect: fx.Invoke) -> None:
        self.job.invoker.invoke(effect.tasks, effect.per)

    def _load(self, effect: fx.Load) -> None:
        self.job.plan.load(effect.tasks)

    def _pause(self, effect: fx.Pause) -> bool:
        return self.job.invoker.pause(effect.seconds)

    def _fail(self, effect: fx.Fail) -> None:
        plan = self.job.plan
        member = failed_member(plan.program(effect.task), effect.error)
        self.job.invoker.fail(plan.members(effect.task)[member], effect.error)

    def _finish(self, _: fx.Finish) -> None:
        self.job.invoker.finish()

    def _store(self) -> ValueStore:
        store = self.job.values
        assert store is not None, "a job without a value store keeps every value with its record"
        return store


# Plain functions: a driver that kept its own methods would live, and its job with it, until a garbage collection.
_CARRY_OUT: Final[CarryOut] = {
    fx.Ask: Driver._ask,
    fx.Run: Driver._run,
    fx.Fetch: Driver._fetch,
    fx.Put: Driver._put,
    fx.Drop: Driver._drop,
    fx.Invoke: Driver._invoke,
    fx.Load: Driver._load,
    fx.Pause: Driver._pause,
    fx.Fail: Driver._fail,
    fx.Finish: Driver._finish,
}


def name(task: int, attempt: int) -> str:
    """Return the name of an attempt's value within its job."""
    return f"{task}.{attempt}"

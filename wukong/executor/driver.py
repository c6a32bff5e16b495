"""Carrying out the effects of executors on real stores and a real platform: the driver of every local granule."""

from collections.abc import Callable, Sequence
from threading import Lock
from time import perf_counter
from typing import Any

from wukong.executor import effects as fx
from wukong.executor.core import Executor, Tally
from wukong.executor.job import Job
from wukong.ids import new_nonce
from wukong.protocol import messages as m
from wukong.storage.values.base import ValueStore


class Driver:
    """Runs executors of one job, from any thread.

    Parameters
    ----------
    job : Job
        The job.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._context = job.context()
        self._observing = Lock()
        self._carry_out: dict[type, Callable[[Any], Any]] = {
            fx.Ask: self._ask,
            fx.Run: self._run if job.observer is None else self._run_observed,
            fx.Fetch: self._fetch,
            fx.Put: self._put,
            fx.Drop: self._drop,
            fx.Invoke: lambda effect: job.invoker.invoke(effect.tasks, effect.per),
            fx.Load: lambda effect: job.plan.load(effect.tasks),
            fx.Pause: lambda effect: job.invoker.pause(effect.seconds),
            fx.Fail: self._fail,
            fx.Finish: lambda _: job.invoker.finish(),
        }

    def enter(self, starts: Sequence[int]) -> Tally:
        """Run one executor from `starts` to its end and return what it did.

        Raises
        ------
        StoreError
            If a store does not answer.
        """
        steps = Executor(new_nonce(), self._context).walk(starts)
        carry_out = self._carry_out
        answer: Any = None
        while True:
            try:
                effect = steps.send(answer)
            except StopIteration as end:
                tally: Tally = end.value
                return tally
            # The last answer may be the only thing that still keeps a large value alive.
            answer = None
            answer = carry_out[type(effect)](effect)

    def _ask(self, effect: fx.Ask) -> m.Reply:
        return self._job.control.apply(self._job.name, effect.shard, effect.request)

    def _run(self, effect: fx.Run) -> fx.Ran | fx.Raised:
        began = perf_counter()
        try:
            value = self._job.plan.run(effect.task, effect.values)
        except BaseException as error:
            return fx.Raised(error)
        return fx.Ran(value, perf_counter() - began)

    def _run_observed(self, effect: fx.Run) -> fx.Ran | fx.Raised:
        observer, key = self._job.observer, self._job.plan.key(effect.task)
        assert observer is not None
        try:
            with self._observing:
                observer.started(key)
            ran = self._run(effect)
            if isinstance(ran, fx.Ran):
                with self._observing:
                    observer.finished(key, ran.value)
        except BaseException as error:
            return fx.Raised(error)
        return ran

    def _fetch(self, effect: fx.Fetch) -> list[Any]:
        frames = self._store().get([name(*pair) for pair in effect.names])
        return [fx.LACKING if frame is None else self._job.unpack(frame) for frame in frames]

    def _put(self, effect: fx.Put) -> None:
        for task, attempt, frame in effect.frames:
            self._store().put(name(task, attempt), frame)

    def _drop(self, effect: fx.Drop) -> None:
        self._store().delete([name(*pair) for pair in effect.names])

    def _fail(self, effect: fx.Fail) -> None:
        self._job.invoker.fail(effect.task, effect.error)

    def _store(self) -> ValueStore:
        store = self._job.values
        assert store is not None, "a job without a value store keeps every value with its record"
        return store


def name(task: int, attempt: int) -> str:
    """Return the name of an attempt's value within its job."""
    return f"{task}.{attempt}"

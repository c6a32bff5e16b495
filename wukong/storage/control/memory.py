"""The control store of jobs that stay in one process: the reference model behind locks, one for each shard."""

import time
from collections.abc import Callable
from threading import Condition, Lock

from wukong.protocol import messages as m
from wukong.protocol import states
from wukong.protocol.model import Shard
from wukong.storage.counters import Counters


class _ForgetfulShard(Shard):
    keeps_answers = False


class MemoryControlStore:
    """A control store in this process.

    Parameters
    ----------
    shards : int
        Number of shards of each job.
    clock : callable
        The time in seconds; tests and the simulator give their own.
    keeps_answers : bool
        Whether the same request again gets the same answer. Callers that cannot lose an answer do without: kept
        answers keep values alive.
    """

    def __init__(
        self, shards: int = 1, clock: Callable[[], float] = time.monotonic, keeps_answers: bool = True
    ) -> None:
        self.shards = shards
        self._shard = Shard if keeps_answers else _ForgetfulShard
        self._clock = clock
        self._locks = [Lock() for _ in range(shards)]
        self._jobs: list[dict[str, Shard]] = [{} for _ in range(shards)]
        self._calls = [0] * shards
        self._notice = Condition(self._locks[0])

    @property
    def counters(self) -> Counters:
        """Requests so far; nothing is sent anywhere."""
        return Counters(sum(self._calls))

    def apply(self, job: str, shard: int, request: m.Request) -> m.Reply:
        """See `ControlStore`."""
        with self._locks[shard]:
            self._calls[shard] += 1
            jobs = self._jobs[shard]
            state = jobs.get(job)
            if state is None:
                state = self._shard()
            notified = state.notified
            reply = state.apply(request, self._clock())
            if state.open:
                jobs[job] = state
                if shard == 0 and state.notified and not notified:
                    self._notice.notify_all()
            else:
                jobs.pop(job, None)
            return reply

    def replace(self, job: str, shard: int, task: int, attempt: int, value: m.Value) -> None:
        """Note that the value of an attempt is elsewhere now, if it is still needed."""
        with self._locks[shard]:
            state = self._jobs[shard].get(job)
            if state is not None and state.values.get(task, (0, None))[0] == attempt:
                state.values[task] = attempt, value

    def give_back(self, job: str, shard: int, task: int) -> None:
        """Make a claimed task ready again for somebody else."""
        with self._locks[shard]:
            state = self._jobs[shard].get(job)
            if state is not None and task in state.active:
                active = state.active[task]
                state.active[task] = active._replace(state=states.READY, owner="")

    def wait(self, job: str, timeout: float) -> bool:
        """See `ControlStore`."""
        with self._notice:
            jobs = self._jobs[0]
            return self._notice.wait_for(lambda: job in jobs and jobs[job].notified, timeout)

    def close(self) -> None:
        """See `ControlStore`."""

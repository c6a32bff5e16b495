"""Keeping a job in an external store: nobody lapses who lives, nothing waits for nobody, what is forgotten is mended.

    now and then      leases of executors at work are prolonged; ready tasks that nobody came for are started again
    nobody is at work ready tasks are started again as well, if there are any
    the job is gone   whoever hears it from the store opens the job again, at once: of what executors are at nothing
                      could be recorded any more, and idle workers begin with it
    the store was     (a restart, a fail-over) what executors are at still counts, and maybe nothing was forgotten: the
    away              job is opened again when nobody is at work and the results are not there

`watch.repair` opens it under the next epoch: what is still known stays, the rest is started again. Only for jobs all of
whose executors are this client's own: it knows who is at work.
"""

from collections.abc import Callable, Collection
from functools import partial
from threading import Lock
from typing import Any, Final, TypeVar

from wukong.errors import JobStalled, StoreError, StoreForgot
from wukong.executor import effects as fx
from wukong.executor.driver import Driver
from wukong.executor.job import Job
from wukong.executor.session import Session, Steps
from wukong.plan.reading import Plan
from wukong.platforms.local.board import Posted
from wukong.protocol import messages as m
from wukong.scheduler.launch import Client, ValuesLost
from wukong.scheduler.rounds import rounds
from wukong.scheduler.watch import REPAIRING, renew, repair, sweep

Result = TypeVar("Result")

#: How often one job is opened again.
EPOCHS: Final = 8


class Keeping:
    """What the client does for one job in an external store.

    Parameters
    ----------
    job : Job
        The job.
    client : Client
        Its client's part in it.
    posted : Posted
        Its place on the board.
    away, dead : callable
        Return the executors in other processes, and those whose processes have died.
    generation : callable
        Returns a number that changes when the store may have forgotten something.
    publish : callable
        Puts the parts of the plan into the store again.
    first : int
        The epoch under which this client opens the job.

    Attributes
    ----------
    epochs : int
        How often the job was opened again.
    found : int
        Ready tasks that nobody came for.
    """

    def __init__(
        self,
        job: Job,
        client: Client,
        posted: Posted,
        away: Callable[[], Collection[str]],
        dead: Callable[[], Collection[str]],
        generation: Callable[[], int],
        publish: Callable[[], None],
        first: int = 0,
    ) -> None:
        self.epochs = self.found = 0
        self._first = first
        self._job = job
        self._client = client
        self._posted = posted
        self._away = away
        self._dead = dead
        self._generation = generation
        self._seen = generation()
        self._publish = publish
        self._driver = Driver(job)
        self._opening = Lock()
        self._over = False

    @property
    def epoch(self) -> int:
        """The epoch of the job."""
        return self._first + self.epochs

    def begin(self) -> None:
        """Keep the job from now on, as it has been opened."""
        self._posted.forgotten = self.mend
        rounds.attach(self.look, self._job.costs.lease / 3)

    def end(self) -> None:
        """Keep it no longer. When this returns, nobody opens it again."""
        rounds.detach(self.look)
        with self._opening:
            self._over = True

    def look(self) -> None:
        """Look in on the job once."""
        job = self._job
        if self._posted.over:
            return
        try:
            nonces = [*self._away(), *job.entered.copy()]
            self._driver.follow(renew(job.control.shards, nonces, job.costs.lease))
            self._find(job.costs.lease / 3)
        except StoreError:
            # Executors will find out themselves, and do something about it.
            pass

    def mend(self) -> None:
        """Open the job again at once if it is gone; for who has heard that it is, from any thread."""
        if not self._opening.acquire(blocking=False):
            # Somebody is at it: this thread, even, which asks the store while it opens the job.
            return
        try:
            if not self._over and self._client.follow(_status) == m.GONE:
                self._open_again(JobStalled(f"the store has forgotten job {self._job.name}"))
        except BaseException as error:
            self._posted.fail(None, error)
        finally:
            self._opening.release()

    def bring_home(self, work: Callable[[], None], collect: Callable[[], Result]) -> Result:
        """Work on the job until its results can be collected, and return them.

        Parameters
        ----------
        work : callable
            Returns when the results seem to be ready; raises `JobStalled` when nobody is at work, and they are not.
        collect : callable
            Returns the results; raises `JobStalled` or `ValuesLost` if they are not there.

        Raises
        ------
        StoreForgot
            If the store forgets again and again.
        JobStalled
            If nothing was forgotten.
        """
        mended = False
        while True:
            epochs = self.epochs
            try:
                # Results may have become ready before an executor of an older epoch could be told from one of this.
                if not mended:
                    work()
                with self._opening:
                    return collect()
            except (JobStalled, ValuesLost) as error:
                with self._opening:
                    mended, before = self.epochs != epochs, mended
                    if mended:
                        self._posted.resume()
                    elif not before or isinstance(error, ValuesLost):
                        self._mend(error)

    def _mend(self, error: JobStalled | ValuesLost) -> None:
        without = error.tasks if isinstance(error, ValuesLost) else ()
        # Nobody is at work, so nobody will come.
        if not without and self._find(0.0):
            return
        status = self._client.follow(_status)
        unchanged = status == m.RUNNING and self._generation() == self._seen
        if status not in (m.RUNNING, m.GONE) or (unchanged and not without):
            raise error
        self._open_again(error, without)

    def _find(self, patience: float) -> int:
        """Have started what nobody came for within so many seconds; return how many tasks."""
        _, found = self._driver.follow(sweep(self._job.control.shards, patience, self._dead()))
        started = len(self._posted.invoke_again(found)) if found else 0
        self.found += started
        return started

    def _open_again(self, error: JobStalled | ValuesLost, without: Collection[int] = ()) -> None:
        while True:
            if self.epochs == EPOCHS:
                raise StoreForgot(
                    f"{error}; the job was opened again {EPOCHS} times already: give the store a disk, or replicas "
                    "that are waited for, and compute once more"
                ) from error
            self.epochs, self._seen = self.epochs + 1, self._generation()
            self._posted.resume()
            try:
                self._publish()
                self._client.anew(partial(repair, epoch=self.epoch, without=without))
            except JobStalled as forgot_meanwhile:
                error = forgot_meanwhile
            else:
                return

    @property
    def told(self) -> tuple[str, ...]:
        """What happened, for people."""
        told = []
        if self.epochs:
            told.append(f"store: it lost data, and the job was opened again, {self.epochs} times")
        if self.found:
            told.append(f"{self.found} ready tasks that nobody came for were started again")
        return tuple(told)


def _status(_: Plan, session: Session) -> Steps:
    """Return what the shards say of the job: the worst of it."""
    statuses: list[Any] = []
    for shard in range(session.shards):
        reply = yield fx.Ask(shard, m.Probe(()))
        statuses.append(m.GONE if reply.reason == REPAIRING else reply.status)
    ended: Collection[int] = [status for status in statuses if status not in (m.RUNNING, m.GONE)]
    return max(ended or statuses)

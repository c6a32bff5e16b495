"""Keeping a job whose store forgets: bringing it to its end after a restart without data, or a fail-over.

    executors find that the job is gone, or wait for what was forgotten; nobody is at work any more
      -> the client asks every shard, and sees that the store was away, or that the job is gone
      -> `watch.repair` under the next epoch: what is still known stays, the rest is started again

Only for jobs all of whose executors are this client's own: it knows when none is at work. Not the repair itself.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final, TypeVar

from wukong.errors import JobStalled, StoreForgot
from wukong.executor import effects as fx
from wukong.executor.session import Session, Steps
from wukong.plan.reading import Plan
from wukong.protocol import messages as m
from wukong.scheduler.launch import Client, ValuesLost
from wukong.scheduler.watch import REPAIRING, repair

Result = TypeVar("Result")

#: How often one job is opened again.
EPOCHS: Final = 8


class Keeping:
    """What the client does for one job in an external store.

    Parameters
    ----------
    client : Client
        Its part in the job.
    generation : callable
        Returns a number that changes when the store may have forgotten something.
    publish : callable
        Puts the parts of the plan into the store again.
    resume : callable
        Lets workers take part again in a job that seemed to be over.

    Attributes
    ----------
    epochs : int
        How often the job was opened again.
    """

    def __init__(
        self,
        client: Client,
        generation: Callable[[], int],
        publish: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        self.epochs = 0
        self._client = client
        self._generation = generation
        self._seen = generation()
        self._publish = publish
        self._resume = resume

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
        while True:
            try:
                work()
                return collect()
            except (JobStalled, ValuesLost) as error:
                self._mend(error)

    def _mend(self, error: JobStalled | ValuesLost) -> None:
        without = error.tasks if isinstance(error, ValuesLost) else ()
        while True:
            status = self._client.follow(_status)
            if status not in (m.RUNNING, m.GONE):
                raise error
            generation = self._generation()
            if not without and status == m.RUNNING and generation == self._seen:
                raise error
            if self.epochs == EPOCHS:
                raise StoreForgot(
                    f"{error}; the job was opened again {EPOCHS} times already: give the store a disk, or replicas "
                    "that are waited for, and compute once more"
                ) from error
            self.epochs, self._seen = self.epochs + 1, generation
            self._resume()
            try:
                self._publish()
                self._client.anew(partial(repair, epoch=self.epochs, without=without))
            except JobStalled as forgot_meanwhile:
                error = forgot_meanwhile
            else:
                return

    @property
    def told(self) -> tuple[str, ...]:
        """What happened, for people."""
        if not self.epochs:
            return ()
        return (f"store: it lost data, and the job was opened again, {self.epochs} times",)


def _status(_: Plan, session: Session) -> Steps:
    """Return what the shards say of the job: the worst of it."""
    statuses: list[Any] = []
    for shard in range(session.shards):
        reply = yield fx.Ask(shard, m.Probe(()))
        statuses.append(m.GONE if reply.reason == REPAIRING else reply.status)
    ended: Collection[int] = [status for status in statuses if status not in (m.RUNNING, m.GONE)]
    return max(ended or statuses)

"""What every control store does. The protocol itself is `wukong.protocol`; this says only how a request gets there."""

from typing import Protocol

from wukong.protocol import messages as m
from wukong.storage.counters import Counters


class ControlStore(Protocol):
    """The records of jobs, spread over shards that know nothing of each other. Safe to use from any thread."""

    @property
    def shards(self) -> int:
        """Number of shards of each job."""

    @property
    def counters(self) -> Counters:
        """Round trips, and bytes of requests and replies."""

    def apply(self, job: str, shard: int, request: m.Request) -> m.Reply:
        """Carry out `request` atomically, in one round trip.

        Raises
        ------
        StoreUnavailable
            If no answer came. The request may have been carried out: send the same one again.
        """

    def wait(self, job: str, timeout: float) -> bool:
        """Block until `CLIENT` is ready or the job has failed or been cancelled, in shard 0.

        Returns at once if that is so already, however often it is asked.

        Parameters
        ----------
        job : str
            The job.
        timeout : float
            Seconds to wait at most.

        Returns
        -------
        bool
            Whether it is so; False after `timeout` seconds.
        """

    def close(self) -> None:
        """Let go of connections. Jobs stay as they are."""

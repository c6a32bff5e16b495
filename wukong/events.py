"""What may be told while a job runs, and what is kept of it. Not how it is shown."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol


class Observer(Protocol):
    """Is told of tasks by whoever runs them, from one thread at a time. Where there is none, nothing is paid.

    A task whose result is already known may be left out altogether.
    """

    def started(self, key: Hashable) -> None:
        """Note that the task of this key is about to run."""

    def finished(self, key: Hashable, value: Any) -> None:
        """Note that it ran and gave this value. A task that fails is started only."""


@dataclass(slots=True)
class Run:
    """Figures of one compute.

    Attributes
    ----------
    tasks : int
        Tasks that were to run, after culling.
    seconds : float
        Wall time from the graph's arrival to its results.
    executors, becomes, invocations : int
        Executors started; tasks that one of them went on to itself; tasks handed to another.
    round_trips, bytes_sent, bytes_received : int
        Requests to the stores, and what they carried.
    where : str
        Where it ran.
    """

    tasks: int = 0
    seconds: float = 0.0
    executors: int = 0
    becomes: int = 0
    invocations: int = 0
    round_trips: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    where: str = "the client, alone"

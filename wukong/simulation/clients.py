"""The clients of a simulated job: when they come, die and cancel, and what they are told. Not what they do.

That is in `wukong.simulation.client`.
"""

from abc import abstractmethod
from functools import partial
from random import Random

from wukong.executor.session import Steps
from wukong.protocol import messages as m
from wukong.simulation.client import End
from wukong.simulation.faults import Faults
from wukong.simulation.processes import Process, Processes


class Clients(Processes):
    """Processes of which some are clients.

    Parameters
    ----------
    seed, random, faults
        See `Processes`.

    Attributes
    ----------
    end : End
        How the job ended, as the first client was told that did not hear of another.
    ends : list of End
        What clients were told.
    cancelled : int
        Which client was asked to cancel; None if none.
    """

    def __init__(self, seed: int, random: Random, faults: Faults) -> None:
        super().__init__(seed, random, faults)
        self.end: End | None = None
        self.ends: list[End] = []
        self.cancelled: int | None = None
        self._lives = 0
        self._clients: dict[int, Process] = {}

    @abstractmethod
    def _life(self, name: str, line: int) -> Steps:
        """Return the steps of one life of a client."""

    def _begin(self) -> None:
        """Have the first client come; say when others do, when one dies, and when the user cancels."""
        self._enter_client(0)
        for line in range(1, 1 + self.faults.rival):
            self._at(self._some_time(), partial(self._attach, line))
        for _ in range(self.faults.client):
            self._at(self._some_time(), self._kill_client)
        if self.faults.cancel:
            self._at(self.faults.cancel, self._cancel)

    def _some_time(self) -> float:
        return self._fate.choice([0.02, 0.2, 2.0]) * self._fate.random()

    def deliver(self, end: End) -> None:
        """Take the end of the job from a client."""
        self.ends.append(end)
        if self.end is None and end.status != m.GONE:
            self.end = end

    def _enter_client(self, line: int) -> None:
        self._lives += 1
        name = f"client{self._lives}"
        client = self._clients[line] = Process(name, "", self._life(name, line), self.now, mortal=False)
        self._start(client)

    def _notify(self) -> None:
        """Wake the clients that wait, unless the notice is lost: then they look for themselves."""
        for client in self._clients.values():
            if client.pausing and not client.dead and not self._falls("notice"):
                self._at(0.001, partial(self._wake, client, client.step))

    def _wake(self, client: Process, step: int) -> None:
        if client.step == step:
            self._resume(client, True)

    def _attach(self, line: int) -> None:
        self._note("rival")
        self._enter_client(line)

    def _kill_client(self) -> None:
        line = self._fate.choice(list(self._clients))
        client = self._clients[line]
        if not client.over and not client.dead:
            self._note("client", client)
            client.dead = True
            self._at(self._fate.choice([0.1, 3.0, 20.0]), partial(self._enter_client, line))

    def _cancel(self) -> None:
        if self.end is None:
            self._note("cancel")
            self.cancelled = self._fate.choice(list(self._clients))

"""Who takes part: Wukong, its peers, and the floor below all of them."""

import os
from typing import Any

from benchmarks.peers.contestant import Arguments, Contestant, Function, Graphs, Submits
from benchmarks.peers.rivals import (
    DaskProcesses,
    DaskSync,
    DaskThreads,
    Distributed,
    Lithops,
    ProcessPool,
    Ray,
)


class Socket(Contestant):
    """No peer but the floor: a bare Unix socket to a process that answers each byte with a byte."""

    peer = False

    def start(self) -> None:
        """Fork the process."""
        import socket

        self.socket, other = socket.socketpair()
        self.child = os.fork()
        if not self.child:
            self.socket.close()
            while data := other.recv(64):
                other.sendall(data)
            os._exit(0)
        other.close()

    def each(self, function: Function, arguments: Arguments) -> list[int]:
        """Make a round trip in the place of each call."""
        values = []
        for argument in arguments:
            self.socket.sendall(b"x")
            self.socket.recv(64)
            values.append(function(argument))
        return values

    def stop(self) -> None:
        """End the process."""
        self.socket.close()
        os.waitpid(self.child, 0)


class Wukong(Graphs, Submits):
    """Wukong as a user has it."""

    imports = ("dask", "distributed", "wukong", "wukong.client", "wukong.scheduler.run")
    peer = False

    def start(self) -> None:
        """Open a client."""
        self.client = _client(self.workers, "auto")
        self.scheduler = self.client.get

    def stop(self) -> None:
        """Close it."""
        self.client.close()


class WukongProcesses(Submits):
    """Wukong with its calls forced into processes, where it might keep those of nothing at home."""

    imports = Wukong.imports
    peer = False

    def start(self) -> None:
        """Open a client, and see that its calls do go elsewhere."""
        self.client = _client(self.workers, "processes")
        if self.client.submit(os.getpid, pure=False).result() == os.getpid():
            raise RuntimeError("granules='processes' runs calls in the client")

    def stop(self) -> None:
        """Close it."""
        self.client.close()


def _client(workers: int, granules: str) -> Any:
    import wukong

    return wukong.Client(workers=workers, granules=granules)


CONTESTANTS: dict[str, type[Contestant]] = {
    "wukong": Wukong,
    "wukong processes": WukongProcesses,
    "dask sync": DaskSync,
    "dask threads": DaskThreads,
    "dask processes": DaskProcesses,
    "distributed": Distributed,
    "ray": Ray,
    "lithops": Lithops,
    "pool": ProcessPool,
    "socket": Socket,
}

"""Who takes part: each starts what it needs, does the work of a row in its own way, and stops.

`compute` takes a Dask collection; `map` calls a function with each of some arguments as one job; `each` makes the calls
one after the other, and `together` makes all of them before it takes the first result. A contestant lacks what it does
not offer. All have the same number of workers and one BLAS thread in each.
"""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

Function = Callable[[int], int]
Arguments = Sequence[int]


class Contestant:
    """What all have in common.

    Parameters
    ----------
    workers : int
        How many work at once.
    scratch : Path
        Where files may be left; it is removed afterwards.
    """

    #: What a user would have imported.
    imports: tuple[str, ...] = ()
    #: Whether it is one to be measured against, rather than ours or a floor.
    peer = True

    def __init__(self, workers: int, scratch: Path) -> None:
        self.workers = workers
        self.scratch = scratch
        for name in self.imports:
            import_module(name)
        self.configure()

    def configure(self) -> None:
        """Set what has to stand before graphs are made. Nothing is started."""

    def start(self) -> None:
        """Start workers; part of the first call."""

    def stop(self) -> None:
        """End what `start` has begun."""


class Submits(Contestant):
    """A contestant with a `client` whose `submit` gives futures."""

    client: Any

    def each(self, function: Function, arguments: Arguments) -> list[int]:
        """Submit and wait, one after the other."""
        return [self.client.submit(function, argument, pure=False).result() for argument in arguments]

    def together(self, function: Function, arguments: Arguments) -> list[int]:
        """Submit all, then wait."""
        return self.client.gather([self.client.submit(function, argument, pure=False) for argument in arguments])


class DaskSync(Contestant):
    """Dask in the client, one task after the other."""

    # Dask looks for its other half at every compute.
    imports = ("dask", "distributed")
    scheduler: Any = "sync"

    def compute(self, collection: Any) -> Any:
        """Return what a collection holds."""
        import dask

        return dask.compute(collection, scheduler=self.scheduler)[0]

    def map(self, function: Function, arguments: Arguments) -> list[int]:
        """Return a function's values, computed as one graph."""
        from dask import delayed

        call = delayed(function)
        return self.compute([call(argument) for argument in arguments])


class DaskThreads(DaskSync):
    """Dask's threads."""

    imports = ("dask", "distributed", "dask.threaded")
    scheduler = "threads"

    def configure(self) -> None:
        """Have as many threads as workers."""
        import dask

        dask.config.set(num_workers=self.workers)


class DaskProcesses(DaskSync):
    """Dask's processes, in a pool that is kept for all calls, which is faster than Dask's own way: a pool for each."""

    imports = ("dask", "distributed", "dask.multiprocessing")
    scheduler = "processes"

    def start(self) -> None:
        """Start the pool as Dask does."""
        from concurrent.futures import ProcessPoolExecutor

        import dask
        from dask.multiprocessing import get_context, initialize_worker_process

        self.pool = ProcessPoolExecutor(self.workers, get_context(), initialize_worker_process)
        dask.config.set(pool=self.pool, num_workers=self.workers)

    def stop(self) -> None:
        """End the pool."""
        self.pool.shutdown()


class Distributed(DaskSync, Submits):
    """dask.distributed: as many processes of one thread each, on this machine."""

    def configure(self) -> None:
        """Have tables shuffled its way."""
        import dask

        dask.config.set({"temporary_directory": str(self.scratch), "dataframe.shuffle.method": "p2p"})

    def start(self) -> None:
        """Start a cluster and a client."""
        from distributed import Client, LocalCluster

        self.cluster = LocalCluster(
            n_workers=self.workers, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        )
        self.client = Client(self.cluster)
        self.scheduler = self.client.get

    def stop(self) -> None:
        """End both."""
        self.client.close()
        self.cluster.close()


class Ray(DaskSync):
    """Ray: its own scheduler for Dask's graphs, its remote functions for calls."""

    imports = ("dask", "distributed", "ray", "ray.util.dask")

    def configure(self) -> None:
        """Have tables shuffled as Ray asks for it."""
        import dask

        dask.config.set({"dataframe.shuffle.method": "tasks"})

    def start(self) -> None:
        """Start a node."""
        import ray
        from ray.util.dask import ray_dask_get

        ray.init(
            num_cpus=self.workers,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=2 * 10**9,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(self.scratch / "ray"),
        )
        self.scheduler = ray_dask_get

    def map(self, function: Function, arguments: Arguments) -> list[int]:
        """Call a remote function with all arguments."""
        return self.together(function, arguments)

    def each(self, function: Function, arguments: Arguments) -> list[int]:
        """Call a remote function and wait, one after the other."""
        import ray

        remote = ray.remote(function)
        return [ray.get(remote.remote(argument)) for argument in arguments]

    def together(self, function: Function, arguments: Arguments) -> list[int]:
        """Call a remote function with all, then wait."""
        import ray

        remote = ray.remote(function)
        return ray.get([remote.remote(argument) for argument in arguments])

    def stop(self) -> None:
        """End the node."""
        import ray

        ray.shutdown()


class Lithops(Contestant):
    """Lithops on this machine: calls as jobs through files."""

    imports = ("lithops",)

    def start(self) -> None:
        """Start its processes."""
        import lithops

        config = {
            "lithops": {"backend": "localhost", "storage": "localhost", "log_level": "WARNING"},
            "localhost": {"runtime": sys.executable, "worker_processes": self.workers},
            "localhost_storage": {"storage_bucket": "bench"},
        }
        self.executor = lithops.FunctionExecutor(config=config)

    def map(self, function: Function, arguments: Arguments) -> list[int]:
        """Map as one job."""
        futures = self.executor.map(function, list(arguments))
        return self.executor.get_result(futures, show_progressbar=False)

    together = map

    def stop(self) -> None:
        """Remove its files."""
        self.executor.clean(clean_cloudobjects=False)


class ProcessPool(Contestant):
    """`concurrent.futures.ProcessPoolExecutor` of the standard library."""

    imports = ("concurrent.futures.process",)

    def start(self) -> None:
        """Make the pool; its processes start with the first calls."""
        from concurrent.futures import ProcessPoolExecutor

        self.pool = ProcessPoolExecutor(self.workers)

    def map(self, function: Function, arguments: Arguments) -> list[int]:
        """Map, one call a task."""
        return list(self.pool.map(function, arguments))

    def each(self, function: Function, arguments: Arguments) -> list[int]:
        """Submit and wait, one after the other."""
        return [self.pool.submit(function, argument).result() for argument in arguments]

    def together(self, function: Function, arguments: Arguments) -> list[int]:
        """Submit all, then wait."""
        return [future.result() for future in [self.pool.submit(function, argument) for argument in arguments]]

    def stop(self) -> None:
        """End the pool."""
        self.pool.shutdown()


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


class Wukong(DaskSync, Submits):
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

"""The peers: Dask's schedulers, dask.distributed, Ray, Lithops, and the pool of the standard library."""

import sys
from types import MappingProxyType

from benchmarks.peers.contestant import Arguments, Contestant, Function, Graphs, Submits


class DaskSync(Graphs):
    """Dask in the client, one task after the other."""

    scheduler = "sync"


class DaskThreads(Graphs):
    """Dask's threads."""

    imports = ("dask", "distributed", "dask.threaded")
    scheduler = "threads"

    def configure(self) -> None:
        """Have as many threads as workers."""
        import dask

        dask.config.set(num_workers=self.workers)


class DaskProcesses(Graphs):
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


class Distributed(Graphs, Submits):
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


class Ray(Graphs):
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
    """Lithops on this machine: calls as jobs through files, a tenth of a second and more for each."""

    imports = ("lithops",)
    sampled = MappingProxyType({"together": 50})

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

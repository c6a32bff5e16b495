"""The keeper: a single-threaded process that forks workers, tells how they end, and ends them all with the client.

    client --- socket ---> keeper --- fork ---> worker, worker, ...

It starts as a new Python, which runs nothing of the client's, and imports what the client has imported of well-known
packages, so that a fork is ready at once. The kernel closes the client's end of the socket whatever ends the client,
`kill -9` included. Each worker leads a process group, and the group goes with it, so that what tasks have started does
not outlive them. What workers do is not the keeper's business.
"""

import contextlib
import ctypes
import gc
import importlib.util
import os
import select
import signal
import socket
import sys
import traceback
import types
import warnings
from typing import Any, Final, NoReturn

from wukong.platforms.local import surroundings, worker
from wukong.storage.channel import Channel

#: Packages that take long to import, are safe to fork, and mean the same to everybody.
WELL_KNOWN: Final = (
    "dask.array",
    "dask.bag",
    "dask.dataframe",
    "numba",
    "numpy",
    "numpy.random",
    "pandas",
    "pyarrow",
    "scipy",
    "scipy.linalg",
    "scipy.sparse",
    "sklearn",
    "wukong.plan.program",
    "xarray",
)

#: What `python -c` runs. Importing the package `wukong` in earnest imports Dask, which not every task needs: a bare
#: one stands in for it, and becomes the real one when somebody asks it for anything or imports Dask.
START: Final = """
import sys, types
package = sys.modules["wukong"] = types.ModuleType("wukong")
package.__path__ = [sys.argv[1]]
from wukong.platforms.local import keeper
keeper.main(int(sys.argv[2]))
"""

_PR_SET_PDEATHSIG: Final = 1


def main(fd: int) -> None:
    """Serve the client at the other end of a socket until it ends."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    complete_lazily(sys.modules["wukong"])
    client = Channel(socket.socket(fileno=fd))
    try:
        Keeper(client).serve()
    finally:
        client.close()


class Keeper:
    """The workers, and the client they belong to.

    Parameters
    ----------
    client : Channel
        ``("import", path, names)``, ``("fork", number)`` with the descriptors of the worker, ``("kill", number)``
        come; ``("forked", number, pid)`` and ``("ended", number, (status, most bytes of memory))`` go.
    """

    def __init__(self, client: Channel) -> None:
        self._client = client
        self._numbers: dict[int, int] = {}
        self._pid = os.getpid()
        self._noted, self._note = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(self._note, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Do what the client asks until its end of the socket is closed; then kill what is left."""
        poll = select.poll()
        poll.register(self._client, select.POLLIN)
        poll.register(self._noted, select.POLLIN)
        try:
            while True:
                ready = [fd for fd, _ in poll.poll()]
                if self._noted in ready:
                    os.read(self._noted, 4096)
                    self._bury()
                if self._client.fileno() in ready:
                    message, fds = self._client.receive()
                    getattr(self, f"_{message[0]}")(fds, *message[1:])
        except (EOFError, OSError):
            # The client is gone.
            for pid in list(self._numbers):
                _kill_group(pid)

    def _import(self, _: list[int], path: list[str], names: list[str]) -> None:
        sys.path[:] = path
        for name in names:
            # A task that needs it will say what is wrong with it.
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(name)
        gc.collect()
        # What is here now stays in memory that workers share.
        gc.freeze()

    def _fork(self, fds: list[int], number: int) -> None:
        with warnings.catch_warnings():
            # Threads of a numerical library are shut down before a fork by the library itself.
            warnings.simplefilter("ignore")
            pid = os.fork()
        if not pid:
            self._become_worker(fds)
        # Both do it, so that it is done whoever comes first.
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        for fd in fds:
            os.close(fd)
        self._numbers[pid] = number
        self._client.send(("forked", number, pid))

    def _become_worker(self, fds: list[int]) -> NoReturn:
        status = 1
        try:
            os.setpgid(0, 0)
            _end_with_parent(self._pid)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            self._client.close()
            os.close(self._noted)
            os.close(self._note)
            worker.main(*fds)
            status = 0
        except ConnectionError:
            # The client is gone.
            pass
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            # Not `exit`: what the keeper wanted to happen at its own end is not the worker's.
            os._exit(status)

    def _kill(self, _: list[int], number: int) -> None:
        for pid, its in self._numbers.items():
            if its == number:
                _kill_group(pid)

    def _bury(self) -> None:
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            # While it is not buried, its number cannot be another's.
            _kill_group(ended.si_pid)
            _, status, used = os.wait4(ended.si_pid, 0)
            number = self._numbers.pop(ended.si_pid, None)
            if number is not None:
                self._client.send(("ended", number, (os.waitstatus_to_exitcode(status), 1024 * used.ru_maxrss)))


def complete_lazily(package: types.ModuleType) -> None:
    """Have a bare package become the real one when somebody asks it for anything, or imports Dask, which it goes with.

    Parameters
    ----------
    package : module
        With its name and path, and nothing else.
    """
    finder = _AfterDask(package)

    def complete(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if importlib.util.find_spec(f"wukong.{name}") is not None:
            return importlib.import_module(f"wukong.{name}")
        importlib.import_module("dask")
        return getattr(package, name)

    package.__getattr__ = complete  # type: ignore[method-assign]
    sys.meta_path.insert(0, finder)


class _AfterDask:
    """Finds Dask like everybody, and completes the bare package once Dask is imported."""

    def __init__(self, package: types.ModuleType) -> None:
        self._package = package

    def find_spec(self, name: str, *_: Any) -> Any:
        if name != "dask":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (run(module), self._complete())  # type: ignore
        return spec

    def _complete(self) -> None:
        package = self._package
        spec = importlib.util.spec_from_file_location("wukong", f"{package.__path__[0]}/__init__.py")
        assert spec is not None
        assert spec.loader is not None
        del package.__getattr__
        package.__spec__, package.__file__ = spec, spec.origin
        spec.loader.exec_module(package)
        surroundings.applied.apply_dask_config()


def _end_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def _nothing(*_: object) -> None:
    """Have the signal noted by the descriptor, and do nothing else."""

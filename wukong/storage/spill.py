"""Where values go that a server refuses: a directory of each client, and its end, also after `kill -9`.

    <tmp>/wukong-spill-x3k1/          the client holds a lock on it for as long as it lives
                            <job>/    made by whoever spills first, client or worker; see `values.disk`

The system lets go of the lock, whatever ends the client. The next client, or `wukong clean`, removes what has none.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from wukong.storage.memory import directory_of_dask

_PREFIX: Final = "wukong-spill-"


class Dead(NamedTuple):
    """A directory whose client has gone, and how many files and bytes are in it."""

    path: Path
    files: int
    nbytes: int


class Spill:
    """The directory of this client; what dead ones left beside it is removed.

    Parameters
    ----------
    base : str, optional
        Where; what is usual, if not given.

    Raises
    ------
    OSError
        If nothing can be written there.
    """

    def __init__(self, base: str | None = None) -> None:
        base = base or usual()
        for dead in find(base):
            remove(dead)
        while True:
            self.path = tempfile.mkdtemp(prefix=_PREFIX, dir=base)
            # Another client may find it before there is a lock on it, and remove it.
            try:
                self._lock = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            fcntl.flock(self._lock, fcntl.LOCK_SH)
            if os.path.isdir(self.path):
                return
            os.close(self._lock)

    def close(self) -> None:
        """Remove it, with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.forget()

    def forget(self) -> None:
        """Hold it no longer; in a forked child, which would keep it from being removed when the client has gone."""
        os.close(self._lock)


def usual() -> str:
    """Return the directory for temporary files that Dask is told to use, or else that of the system."""
    return directory_of_dask() or tempfile.gettempdir()


def find(base: str | None = None) -> list[Dead]:
    """Return the directories in `base` that dead clients of this user left."""
    found = []
    for path in sorted(Path(base or usual()).glob(f"{_PREFIX}*")):
        with _unlocked(path) as dead:
            if dead:
                # A name that begins with a dot is that of no value.
                sizes = [file.stat().st_size for file in path.rglob("[!.]*") if file.is_file()]
                found.append(Dead(path, len(sizes), sum(sizes)))
    return found


def remove(dead: Dead) -> None:
    """Remove it, unless somebody has a lock on it after all."""
    with _unlocked(dead.path) as still:
        if still:
            shutil.rmtree(dead.path, ignore_errors=True)


@contextlib.contextmanager
def _unlocked(path: Path) -> Iterator[bool]:
    """Whether a directory is this user's and nobody lives who has a lock on it; then nobody gets one meanwhile."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield os.fstat(lock).st_uid == os.getuid()
    except BlockingIOError:
        yield False
    finally:
        os.close(lock)

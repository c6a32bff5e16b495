"""Values in files of one directory, for processes of one machine: slower than a server, and larger."""

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Sequence
from typing import Final

from wukong.errors import StoreFull
from wukong.storage.counters import Counters
from wukong.storage.memory import disk_here
from wukong.storage.resp import Buffer
from wukong.storage.values.base import Frame, size_of

#: What a disk says that takes no more: it is full, or one has had one's share, or the file is as large as may be.
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
#: Beside the values: the size of each one that was put, by whatever process, also when it is gone again.
_SIZES: Final = ".sizes"


class DiskValueStore:
    """The values of one job in a directory.

    Parameters
    ----------
    directory : str
        Of all jobs of a client; must exist when the first value is put.
    job : str
    """

    def __init__(self, directory: str, job: str) -> None:
        self._above = directory
        self._directory = os.path.join(directory, job)
        self._tally = [0, 0, 0]
        self._lock = threading.Lock()

    @property
    def counters(self) -> Counters:
        """See `ValueStore`; a round trip is one call that came to a file."""
        return Counters(*self._tally)

    @property
    def sizes(self) -> list[int]:
        """Bytes of each value of the job that was put since it was cleared, by all processes."""
        try:
            with open(self._path(_SIZES)) as file:
                return [int(line) for line in file]
        except FileNotFoundError:
            return []

    def put(self, name: str, frame: Frame) -> None:
        """See `ValueStore`.

        Raises
        ------
        StoreFull
            If it cannot be written.
        """
        nbytes = size_of(frame)
        path = self._path(name)
        # Nobody is to see half of it.
        draft = f"{path}.{os.getpid()}.{threading.get_ident()}"
        try:
            if not os.path.isdir(self._directory):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self._directory, mode=0o700)
            with open(draft, "xb", buffering=0) as file:
                for buffer in (frame,) if isinstance(frame, bytes | bytearray | memoryview) else frame:
                    view = memoryview(buffer).cast("B")
                    while view:
                        view = view[file.write(view) :]
            os.replace(draft, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise StoreFull(self._why(name, nbytes, error)) from error
        self._count(sent=nbytes)
        # Only the run's summary is poorer without.
        with contextlib.suppress(OSError), open(self._path(_SIZES), "ab", buffering=0) as file:
            file.write(b"%d\n" % nbytes)

    def get(self, names: Sequence[str]) -> list[Buffer | None]:
        """See `ValueStore`. Values are bytearrays of their own."""
        if not os.path.isdir(self._directory):
            return [None] * len(names)
        return [self._read(name) for name in names]

    def delete(self, names: Sequence[str]) -> None:
        """See `ValueStore`."""
        if os.path.isdir(self._directory):
            for name in names:
                try:
                    os.unlink(self._path(name))
                except FileNotFoundError:
                    continue
                self._count()

    def clear(self) -> None:
        """See `ValueStore`."""
        if os.path.isdir(self._directory):
            shutil.rmtree(self._directory, ignore_errors=True)

    def close(self) -> None:
        """See `ValueStore`."""

    def _read(self, name: str) -> Buffer | None:
        try:
            with open(self._path(name), "rb", buffering=0) as file:
                value = bytearray(os.fstat(file.fileno()).st_size)
                view = memoryview(value)
                while view and (count := file.readinto(view)):
                    view = view[count:]
        except FileNotFoundError:
            return None
        self._count(received=len(value))
        return value

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _why(self, name: str, nbytes: int, error: OSError) -> str:
        what = "is full" if error.errno in _FULL else "cannot be written to"
        try:
            free = f"{disk_here(self._above)} bytes are free there"
        except OSError:
            free = "it is not there"
        return (
            f"value {name} of {nbytes} bytes has no place in {self._above}, which {what} ({error.strerror}; {free}). "
            "Name a directory with more room in the store's URL (`?spill=/directory`), or make smaller values"
        )

    def _count(self, sent: int = 0, received: int = 0) -> None:
        with self._lock:
            self._tally[0] += 1
            self._tally[1] += sent
            self._tally[2] += received

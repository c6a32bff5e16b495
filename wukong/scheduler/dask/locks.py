"""Dask's `SerializableLock` made to hold between processes: what `Array.store` and `to_hdf` guard their files with.

Dask takes one for every scheduler that it does not know, and pickles it by its token. From the moment this is imported,
all that are made, here and in workers, have a lock under them that processes share; an older one is given such a lock
when it is pickled.
"""

import copyreg
import threading
from collections.abc import Hashable
from typing import Any
from weakref import WeakValueDictionary

from dask.utils import SerializableLock

from wukong.platforms.local.locks import SharedLock, shares

#: Seconds to wait for the thread that holds a lock which is about to be shared.
_PATIENCE = 10.0


class _Locks(WeakValueDictionary[Hashable, Any]):
    """The locks of this process by token, as Dask keeps them; there is one for every token."""

    def __init__(self, known: Any) -> None:
        super().__init__(known)
        self._making = threading.Lock()

    def __contains__(self, _: object) -> bool:
        return True

    def __getitem__(self, token: Hashable) -> Any:
        with self._making:
            lock = self.get(token)
            if lock is None:
                lock = self[token] = SharedLock(token)
            return lock


def _reduce(lock: SerializableLock) -> tuple[Any, ...]:
    if not isinstance(lock.lock, SharedLock):
        inner = lock.lock
        held = inner.acquire(timeout=_PATIENCE)
        lock.lock = SerializableLock._locks[lock.token] = SharedLock(lock.token, inner)
        if held:
            inner.release()
    return lock_of, (lock.token,)


def lock_of(token: Hashable) -> SerializableLock:
    """Return a lock of this token."""
    return SerializableLock(token)


if shares:
    SerializableLock._locks = _Locks(SerializableLock._locks)
    copyreg.pickle(SerializableLock, _reduce)

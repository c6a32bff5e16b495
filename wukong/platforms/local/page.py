"""A page of memory that a client shares with its workers: which jobs are over, and the task that each worker is at.

    flags    one number for each job in which workers take part: its serial number while it goes on, then 0
    tasks    one number for each worker: the task that it runs, and 1; 0 while it runs none
    news     one number for each job: how often tasks of it were dropped

So a worker hears of the end of a job, or that there is news, before its next task, and the client knows what a worker
was at that is silent or dead, and neither has to ask the other. Numbers of 32 bits are written and read whole.
"""

import mmap
import os
import weakref
from itertools import count
from threading import Lock
from typing import Final, NamedTuple

#: Numbers of each kind.
_FLAGS: Final = 1024
_TASKS: Final = 4096
_NEWS: Final = _FLAGS + _TASKS
_SIZE: Final = 4 * (_NEWS + _FLAGS)


class Flag(NamedTuple):
    """The flag of a job: its place, and what is there while the job goes on."""

    place: int
    serial: int


class Page:
    """The page, to the client.

    Attributes
    ----------
    fd : int
        Its descriptor, for workers.
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("wukong-page", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self.fd)
        os.ftruncate(self.fd, _SIZE)
        self._numbers = memoryview(mmap.mmap(self.fd, _SIZE)).cast("i")
        self._lock = Lock()
        # Where there are none left, the first one is shared, and never lowered: requests say that the job is over.
        self._free = list(range(1, _FLAGS))
        self._serials = count(1)

    def take(self) -> Flag:
        """Return the flag of a new job."""
        with self._lock:
            flag = Flag(self._free.pop(), next(self._serials) & 0x7FFFFFFF) if self._free else Flag(0, 0)
            self._numbers[flag.place] = flag.serial
        return flag

    def lower(self, flag: Flag) -> None:
        """Let workers see that a job is over."""
        with self._lock:
            if self._numbers[flag.place] == flag.serial:
                self._numbers[flag.place] = 0

    def hoist(self, flag: Flag) -> None:
        """Let workers see that a job is not over after all."""
        with self._lock:
            if self._numbers[flag.place] == 0:
                self._numbers[flag.place] = flag.serial

    def announce(self, flag: Flag) -> None:
        """Let workers see that there is news of a job."""
        with self._lock:
            self._numbers[_NEWS + flag.place] = (self.news(flag) + 1) & 0x7FFFFFFF

    def news(self, flag: Flag) -> int:
        """Return how often there was news; jobs before that had the same flag count, too."""
        news: int = self._numbers[_NEWS + flag.place]
        return news

    def give_back(self, flag: Flag) -> None:
        """Lower a flag that is needed no more."""
        self.lower(flag)
        if flag.place:
            with self._lock:
                self._free.append(flag.place)

    def task_of(self, worker: int) -> int | None:
        """Return the task that a worker, given by its number, is at, or was at when it died; None if it is at none."""
        task: int = self._numbers[_FLAGS + worker % _TASKS]
        return task - 1 if task else None

    def clear(self, worker: int) -> None:
        """Forget what a worker was at that has died."""
        self._numbers[_FLAGS + worker % _TASKS] = 0


class Seen(dict[int, int]):
    """The page, to a worker that takes part in a job: the task that each thread is at, which the client sees, too.

    Parameters
    ----------
    fd : int
        Of the page; it may be closed then.
    flag : Flag
        Of the job.
    worker : int
        Its number.
    """

    def __init__(self, fd: int, flag: Flag, worker: int) -> None:
        super().__init__()
        self._numbers = memoryview(mmap.mmap(fd, _SIZE)).cast("i")
        self._place, self._serial = flag
        self._mine = _FLAGS + worker % _TASKS

    @property
    def over(self) -> bool:
        """Whether the job is over."""
        return self._numbers[self._place] != self._serial

    @property
    def news(self) -> int:
        """How often there was news of the job; see `Page.news`."""
        news: int = self._numbers[_NEWS + self._place]
        return news

    def __setitem__(self, thread: int, task: int) -> None:
        dict.__setitem__(self, thread, task)
        self._numbers[self._mine] = task + 1

    def __delitem__(self, thread: int) -> None:
        dict.__delitem__(self, thread)
        self._numbers[self._mine] = 0

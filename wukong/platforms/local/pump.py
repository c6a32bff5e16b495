"""Who reads: one thread at a time, and it should be the one that waits. Not what is read.

A thread that waits for something becomes the reader, unless there is one; what it reads it also serves, so that an
answer wakes exactly the thread that wanted it. Each other waiting thread sleeps on a condition of its own.

    waits            -> reads, if nobody does; else kicks the background thread out of reading, if that is the reader
    has served       -> wakes every waiting thread for which it has become time
    stops waiting    -> if nobody reads then, wakes one that waits; it will read

So nothing is lost: whether somebody reads, who waits, and whether it is time (`ready`) are looked at under one lock,
and a thread that waits sleeps only after it has seen, under that lock, that another reads or has just been woken to
read. Every way out of `wait`, by an exception too, passes the reading on.

A background thread reads while nobody waits, so that callbacks come and deaths are noticed. It must not be in the way
of one call after the other, each of which waits: it takes over only when nobody has begun to wait for a while
(`GRACE`). If it finds, after as long, the same thread still waiting, it sleeps until that is through; and while it
reads it sleeps in the kernel. So it costs nothing when nothing happens, and a wake-up per `GRACE` when much does.
"""

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final

#: Seconds without a waiting thread until the background thread reads.
GRACE: Final = 0.002


class _Waiting:
    """A thread that waits, and for what."""

    __slots__ = ("_changed", "ready")

    def __init__(self, ready: Callable[[], bool]) -> None:
        self.ready = ready
        # Made when it is needed: most threads find that they are to read.
        self._changed: threading.Condition | None = None

    def sleep(self, lock: threading.Lock, timeout: float | None) -> None:
        if self._changed is None:
            self._changed = threading.Condition(lock)
        self._changed.wait(timeout)

    def wake(self) -> None:
        if self._changed is not None:
            self._changed.notify()


class Pump:
    """Descriptors, what serves them, and those who wait.

    Parameters
    ----------
    name : str
        Of the background thread.

    Attributes
    ----------
    lock : Lock
        Guards what `ready` looks at. Held by no thread that serves.
    """

    def __init__(self, name: str) -> None:
        self.lock = threading.Lock()
        self._epoll = select.epoll()
        self._kicked = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._served: dict[int, Callable[[int], object]] = {}
        self._reader: int | None = None
        self._waiting: list[_Waiting] = []
        self._turns = 0
        self._resting = threading.Condition(self.lock)
        self._parked = False
        self._closed = False
        self.watch(self._kicked, lambda _: self._calm())
        self._background = threading.Thread(target=self._read_in_background, name=name, daemon=True)
        self._background.start()

    def watch(self, fd: int, serve: Callable[[int], object]) -> None:
        """Have `serve(events)` called, by whoever reads and with no lock held, when there is something to read."""
        self._served[fd] = serve
        self._epoll.register(fd, select.EPOLLIN)

    def watch_writing(self, fd: int, writing: bool) -> None:
        """Have it called also when there is room to write, or no longer."""
        self._epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if writing else 0))

    def unwatch(self, fd: int) -> None:
        """Serve a descriptor no more; it is still open."""
        if self._served.pop(fd, None) is not None and not self._epoll.closed:
            self._epoll.unregister(fd)

    def wait(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until something is so, and read meanwhile.

        Parameters
        ----------
        ready : callable
            Is asked by any thread, with the lock held: it must be quick and take no other lock. Whoever changes what
            it looks at from outside of serving has to call `look`.
        timeout : float, optional
            Seconds.

        Returns
        -------
        bool
            Whether it is so; False after the timeout, or if the pump was closed.
        """
        deadline = None if timeout is None else monotonic() + timeout
        me = threading.get_ident()
        with self.lock:
            if ready():
                return True
            waiting = _Waiting(ready)
            self._waiting.append(waiting)
            self._turns += 1
            try:
                while not ready():
                    left = None if deadline is None else deadline - monotonic()
                    if self._closed or (left is not None and left <= 0):
                        return False
                    # What serves may itself wait: then its thread is the reader already.
                    if self._reader is None or self._reader == me:
                        self._read(me, left)
                    else:
                        if self._reader == self._background.ident:
                            os.eventfd_write(self._kicked, 1)
                        waiting.sleep(self.lock, left)
                return True
            finally:
                self._waiting.remove(waiting)
                self._pass_on()

    def look(self) -> None:
        """Wake those who wait for what is so by now. The lock must be held."""
        for waiting in self._waiting:
            if waiting.ready():
                waiting.wake()
                # One of them may be the reader.
                os.eventfd_write(self._kicked, 1)

    def stop(self) -> None:
        """Let nobody wait any longer. The lock must be held."""
        self._closed = True
        os.eventfd_write(self._kicked, 1)
        self._resting.notify_all()
        for waiting in self._waiting:
            waiting.wake()

    def close(self) -> None:
        """Stop reading; whoever waits is told so. When this returns, nothing is served but by the thread that calls."""
        me, deadline = threading.get_ident(), monotonic() + 10.0
        with self.lock:
            self.stop()
            while self._reader not in (None, me) and monotonic() < deadline:
                self._resting.wait(0.1)
        if threading.current_thread() is not self._background:
            self._background.join(10.0)

    def release(self) -> None:
        """Close the descriptors, after `close` or in a process that was forked."""
        self._epoll.close()
        if self._kicked >= 0:
            os.close(self._kicked)
            self._kicked = -1

    def _read(self, me: int, timeout: float | None) -> None:
        """Read and serve once. The lock must be held; it is not while this reads."""
        outer, self._reader = self._reader, me
        try:
            # An interrupt may come as soon as this is done.
            self.lock.release()
            for fd, events in self._epoll.poll(timeout):
                serve = self._served.get(fd)
                if serve is not None and not self._closed:
                    serve(events)
        finally:
            self.lock.acquire()
            self._reader = outer
            if self._closed:
                self._resting.notify_all()
            if len(self._waiting) > (me != self._background.ident):
                for waiting in self._waiting:
                    if waiting.ready():
                        waiting.wake()

    def _pass_on(self) -> None:
        """See to it that somebody reads. The lock must be held."""
        if self._reader is None:
            if self._waiting:
                self._waiting[0].wake()
            elif self._parked:
                self._resting.notify()

    def _read_in_background(self) -> None:
        with self.lock:
            me, seen = threading.get_ident(), -1
            while not self._closed:
                if seen != self._turns:
                    seen = self._turns
                    self._resting.wait(GRACE)
                elif self._reader is None and not self._waiting:
                    self._read(me, None)
                    self._pass_on()
                else:
                    self._parked = True
                    self._resting.wait()
                    self._parked = False
                    seen = -1

    def _calm(self) -> None:
        # One that waits while it serves may have been here before.
        with suppress(BlockingIOError):
            os.eventfd_read(self._kicked)

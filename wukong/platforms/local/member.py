"""A worker as the client sees it, what it is given, and what is said of its death. Not what it does there."""

import signal
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from wukong.errors import TaskLost, WorkerLost, WukongError
from wukong.platforms.local.known import Known
from wukong.storage.channel import Channel

#: Of what a worker prints and logs, so many messages and characters of each are kept as evidence.
_MESSAGES: Final = 5
_CHARACTERS: Final = 500


class Work(NamedTuple):
    """What a worker is given.

    Attributes
    ----------
    message : tuple
        ``(op, *args)``; see `worker.OPS`.
    fds : sequence of int
        Descriptors that go with it. They stay the source's.
    returned : callable
        Is given ``(fds, *reply)``: the descriptors, now the source's, and what the op returned.
    lost : callable
        Is given a `WorkerLost` if the worker died before.
    """

    message: tuple[Any, ...]
    fds: Sequence[int]
    returned: Callable[..., None]
    lost: Callable[[WorkerLost], None]


class Source(Protocol):
    """Somebody who has work for workers."""

    def next(self, worker: "Member") -> Work | None:
        """Return work for an idle worker, or None. The pack's lock is held."""

    def abandon(self, error: WukongError) -> None:
        """Note that there are no workers any more, and will be none. No lock is held."""


class Member:
    """A worker of a pack, as the client sees it.

    Attributes
    ----------
    number : int
        Its name; never used again.
    pid : int or None
        None until it has been forked.
    tickets : int
        Descriptor of a semaphore shared with it; see `called`.
    work, source : Work or None, Source or None
        What it is at, and for whom.
    known : Known
        What it was sent and still has.
    status : int or None
        Once it has ended: its exit status, or minus the number of a signal.
    peak : int or None
        Then also: the most memory it had, in bytes.
    said : deque of str
        What it printed and logged last.
    hung_up, condemned, gone : bool
        Whether its socket has been read to the end; whether it is to be killed; whether it is one of the pack no more.
    """

    def __init__(self, number: int, channel: Channel, tickets: int) -> None:
        self.number = number
        self.channel = channel
        self.tickets = tickets
        self.pid: int | None = None
        self.work: Work | None = None
        self.source: Source | None = None
        self.status: int | None = None
        self.peak: int | None = None
        self.said: deque[str] = deque(maxlen=_MESSAGES)
        self.hung_up = self.condemned = False
        self.gone = False
        self.known = Known()

    def heard(self, text: str) -> None:
        """Keep what it has printed or logged, as evidence."""
        self.said.append(text[-_CHARACTERS:])

    def __repr__(self) -> str:
        return f"<worker {self.number}, pid {self.pid}>"


def lost(member: Member, why: str | None = None) -> WorkerLost:
    """Return the error of what a worker was at when it died."""
    status = member.status
    if why is None:
        if status is None:
            why = "the process that keeps it was killed"
        elif status >= 0:
            why = f"it ended with exit status {status}, which a task, or a library, asked for"
        else:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
            why = f"it was killed by {name}"
            if name == "SIGKILL":
                why += ", as the system does when memory runs out (or somebody else did)"
            elif name in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGABRT", "SIGFPE"):
                why += ", so native code crashed (python -X faulthandler says where)"
    if member.peak:
        why += f"; it had up to {member.peak / 1e6:,.0f} MB of memory"
    error = WorkerLost(f"worker process {member.pid} is gone: {why}.")
    error.pid, error.status = member.pid, status
    if member.said:
        error.add_note("wukong: the last that it said:\n" + "".join(member.said).rstrip())
    return error


def given_up(what: str, deaths: Sequence[WorkerLost], doing: str = "was running") -> TaskLost:
    """Return the error of what is not started again, for all of its workers died."""
    times = "once" if len(deaths) == 1 else f"{len(deaths)} times"
    error = TaskLost(
        f"{what} {doing} when its worker died, {times}, and is not started again. The last time: {deaths[-1]}"
    )
    error.pid, error.status = deaths[-1].pid, deaths[-1].status
    notes = [str(death) for death in deaths[:-1]]
    if notes:
        error.add_note("wukong: before that:\n" + "\n".join(notes))
    for note in getattr(deaths[-1], "__notes__", ()):
        error.add_note(note)
    return error

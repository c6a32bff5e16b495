"""What the executor core asks of its driver: each leaves the core as a value and comes back as an answer.

The core itself does no I/O and reads no clock. A driver carries the effects out on real stores and platforms; the
simulator carries them out in virtual time and lets each fail.
"""

from typing import Any, NamedTuple

from wukong.protocol.messages import Request


class Ask(NamedTuple):
    """Send a request to one shard of the control store. Answer: `wukong.protocol.messages.Reply`."""

    shard: int
    request: Request


class Run(NamedTuple):
    """Run a task on the values of its inputs. Answer: `Ran` or `Raised`."""

    task: int
    values: dict[int, Any]


class Fetch(NamedTuple):
    """Read stored values, named (task, attempt). Answer: a list with the value or `LACKING` for each."""

    names: list[tuple[int, int]]


class Put(NamedTuple):
    """Write packed values under their names (task, attempt). Answer: None."""

    frames: list[tuple[int, int, Any]]


class Drop(NamedTuple):
    """Delete stored values that nobody needs any more. Answer: None."""

    names: list[tuple[int, int]]


class Invoke(NamedTuple):
    """Start executors on ready tasks, `per` tasks each. Answer: None."""

    tasks: list[int]
    per: int


class Load(NamedTuple):
    """Load the plan's segments that hold these tasks. Answer: None."""

    tasks: list[int]


class Pause(NamedTuple):
    """Wait `seconds`, or less if the platform has other work for this worker. Answer: whether it has."""

    seconds: float


class Fail(NamedTuple):
    """End the job: this task raised. Answer: None."""

    task: int
    error: BaseException


class Finish(NamedTuple):
    """The last output is settled: the client can read the results. Answer: None."""


Effect = Ask | Run | Fetch | Put | Drop | Invoke | Load | Pause | Fail | Finish


class Ran(NamedTuple):
    """A task has run, in so many seconds."""

    value: Any
    seconds: float


class Dropped:
    """Stands, as a class, for the value of a task that did not run, since nobody needs it any more."""


class Raised(NamedTuple):
    """A task has raised."""

    error: BaseException


class Packed(NamedTuple):
    """A value made ready to leave the executor.

    Attributes
    ----------
    inline : bool
        Whether it is small enough to ride with the task's record in the control store.
    nbytes : int
        Its size.
    body : Any
        What travels: the packed bytes, a frame, or, where nothing leaves the process, the value itself.
    """

    inline: bool
    nbytes: int
    body: Any


class Framed(NamedTuple):
    """An inline value as a frame, where others are the very objects (see `wukong.serialize`)."""

    frame: bytes


class Lacking:
    """The type of `LACKING`, the answer for a value that the store does not have."""

    def __repr__(self) -> str:
        return "LACKING"


LACKING = Lacking()

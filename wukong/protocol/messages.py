"""What executors say to the control store, and what it answers.

Every request concerns one shard of one job and is answered in one round trip. A request that changes anything carries
the executor's nonce and a sequence number that grows with each of its requests to that shard: the same request again
gets the same answer, an older one gets `STALE` and changes nothing.

    executor                       control store (one shard)
        | -- Claim(tasks) ------------> |  READY -> CLAIMED, inputs that are small come back
        | <------------- grants ------- |
        | -- Commit(outcomes) --------> |  first commit of a task wins; its edges are settled with it;
        | <-- settlements ------------- |  children it completes are claimed for the sender or left READY
        | -- Arrive(outcomes) --------> |  the same for edges whose child lives in another shard
        | -- Release(...) ------------> |  gives up claims, uses of values, or the whole job

All messages are plain tuples of integers, strings, bytes and tuples, so that they travel as MessagePack as they are.
"""

from typing import Any, Final, NamedTuple

#: Attempts of one job epoch; those of the next are counted from here, so that no name of a value comes twice.
EPOCH: Final = 1 << 20

#: Parent of every leaf and child of every output: the client stands at both ends of a job.
CLIENT: Final = -1

# Where a value is.
INLINE: Final = 0  # with its record in the control store; `body` is the packed value
STORED: Final = 1  # in the value store under (job, task, attempt)
HELD: Final = 2  # only in the memory of the executor that `body` names

# What became of an outcome.
OK: Final = 0  # applied
LOST: Final = 1  # another attempt has won; nothing changed
WRITE: Final = 2  # a held value is not accepted here: write it first; nothing changed
HOLDING: Final = 3  # applied; the value may be held until its last child is complete

# What the shard says of the job, with every answer.
RUNNING: Final = 0
FAILED: Final = 1
CANCELLED: Final = 2
GONE: Final = 3  # never opened, or released
STALE: Final = 4  # an old request of this executor; nothing changed


def tries(attempt: int) -> int:
    """Return which try at its task an attempt is in its job epoch, from 1."""
    return attempt % EPOCH


class Value(NamedTuple):
    """Where a task's value is.

    Attributes
    ----------
    kind : int
        `INLINE`, `STORED` or `HELD`.
    nbytes : int
        Size of the packed value.
    body : Any
        The packed value (`INLINE`), the holder's nonce (`HELD`, filled in by the store), else None.
    """

    kind: int
    nbytes: int
    body: Any = None


class Edge(NamedTuple):
    """An edge out of a finished task, as its child's shard needs to know it.

    Attributes
    ----------
    child : int
        The task at its end, or `CLIENT`.
    indegree : int
        How many distinct inputs the child has.
    wanted : tuple of int, or None
        Inputs to send back if this request claims the child; what the sender has already, it leaves out. None if the
        child is not to be claimed by it at all, because it belongs elsewhere.
    """

    child: int
    indegree: int
    wanted: tuple[int, ...] | None = ()


class Outcome(NamedTuple):
    """A finished attempt at a task.

    Attributes
    ----------
    task, attempt : int
        Which attempt at which task. Of `CLIENT`, when it opens the shard: the job epoch.
    value : Value
        Where its value is.
    edges : tuple of Edge
        Its out-edges into this shard, the child the sender would rather go on with first.
    claims : int
        At most so many of the children made ready are claimed for the sender; the rest are left `READY`.
    hold : bool
        With a held value: whether the sender would wait for one child that is not complete yet. With a value alone:
        whether it is to be kept though it was used up, because others that are lost are made of it.
    inputs : tuple of (int, int)
        Inputs whose home is this shard and that this outcome has used up, each with its number of consumers.
    settled : bool, or None
        Whether no edge of this task remains to be settled after this request. None of a task that is done, of which
        only the value is told: it is written now, by whoever held it or computed it again.
    """

    task: int
    attempt: int
    value: Value
    edges: tuple[Edge, ...] = ()
    claims: int = 0
    hold: bool = False
    inputs: tuple[tuple[int, int], ...] = ()
    settled: bool | None = True


class Input(NamedTuple):
    """An input that comes back with a claim."""

    task: int
    attempt: int
    value: Value


class Grant(NamedTuple):
    """A task that now belongs to the sender, as attempt number `attempt` (from 1), with the inputs it wanted.

    `committed` is set when an earlier attempt won but did not settle all its edges: the task must not run again, only
    its edges be settled for that attempt (whose value is then `committed`, and whose number is `attempt`).
    """

    task: int
    attempt: int
    inputs: tuple[Input, ...] = ()
    committed: Value | None = None


class Settlement(NamedTuple):
    """The answer to one outcome.

    Attributes
    ----------
    verdict : int
        `OK`, `LOST`, `WRITE` or `HOLDING`.
    granted : tuple of Grant
        Children that this request completed and claimed.
    ready : tuple of int
        Children that are complete and claimed by nobody: to be invoked.
    freed : tuple of (int, int)
        (task, attempt) of stored values that nobody needs any more.
    """

    verdict: int
    granted: tuple[Grant, ...] = ()
    ready: tuple[int, ...] = ()
    freed: tuple[tuple[int, int], ...] = ()


# --- requests ---------------------------------------------------------------------------------------------------------


class Probe(NamedTuple):
    """Read the states of tasks. Changes nothing."""

    tasks: tuple[int, ...] = ()


class Arrive(NamedTuple):
    """Settle edges into this shard of tasks whose home is another one. From `CLIENT`: open the shard."""

    nonce: str
    seq: int
    lease: float
    outcomes: tuple[Outcome, ...]


class Claim(NamedTuple):
    """Take ready tasks, each with the inputs wanted back."""

    nonce: str
    seq: int
    lease: float
    tasks: tuple[tuple[int, tuple[int, ...]], ...]


class Commit(NamedTuple):
    """Commit outcomes of tasks whose home is this shard, and settle their edges into it, one after the other."""

    nonce: str
    seq: int
    lease: float
    outcomes: tuple[Outcome, ...]


class Renew(NamedTuple):
    """Prolong the executor's lease to `lease` seconds from now. Any other request does so too."""

    nonce: str
    lease: float


class Sweep(NamedTuple):
    """Make tasks of lapsed executors ready again, and name ready tasks nobody claimed for `patience` seconds.

    Attributes
    ----------
    patience : float
        Seconds.
    dead : tuple of str
        Executors that are known to have ended: they have lapsed, whatever their leases say.
    late : tuple of int
        Tasks that another executor is to have as well, whoever owns them: they are ready again, as if lapsed.
    """

    patience: float
    dead: tuple[str, ...] = ()
    late: tuple[int, ...] = ()


class Cancel(NamedTuple):
    """End the job as `FAILED` or `CANCELLED`; the first reason stays."""

    status: int
    reason: bytes


class Release(NamedTuple):
    """Give up claims (`tasks`), uses of values (`uses`: input and its number of consumers), or the whole job.

    Uses count only under the job epoch of the attempt that made them: under another, its task may have to run again.
    """

    nonce: str
    seq: int
    lease: float
    tasks: tuple[int, ...] = ()
    uses: tuple[tuple[int, int], ...] = ()
    everything: bool = False
    epoch: int = 0


Request = Probe | Arrive | Claim | Commit | Renew | Sweep | Cancel | Release


class Reply(NamedTuple):
    """The answer to any request.

    Attributes
    ----------
    status : int
        `RUNNING`, or why the request was not carried out.
    reason : bytes
        With `FAILED` and `CANCELLED`: the reason given.
    body : tuple
        Probe: a `State` for each task. Arrive and Commit: a `Settlement` for each outcome. Claim: a `Grant` for each
        task obtained. Sweep: two tuples of tasks, lapsed and unclaimed. Release: (task, attempt) of stored values
        freed. Renew and Cancel: empty.
    """

    status: int
    reason: bytes
    body: tuple[Any, ...]


class State(NamedTuple):
    """What a shard knows of a task: its state (see `wukong.protocol.states`), attempts so far, owner, value."""

    state: int
    attempt: int
    owner: str
    value: Value | None

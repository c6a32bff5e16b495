"""Everything Wukong raises of its own accord. A task's own exception is never wrapped in any of these.

    WukongError
    +-- ConfigError (ValueError)                 unknown platform, store, granules or option
    |   +-- MissingExtra (ImportError)           an optional package is not installed
    |   +-- AnnotationError                      a task is to have workers, or memory, that there are not
    +-- GraphError (ValueError)                  the graph cannot be run by anyone
    |   +-- GraphCycle (RuntimeError)            tasks wait for each other
    |   +-- MissingKey (KeyError)                a task, or the caller, asks for a key that is not there
    |   +-- UnsupportedGraph (NotImplementedError)   it needs what this scheduler, or this platform, does not have
    +-- CannotTravel (TypeError)                 an object has to leave the process and cannot be pickled
    +-- StoreError
    |   +-- StoreUnavailable (ConnectionError)   nobody answers, or the connection was lost
    |   +-- ServerNotFound (FileNotFoundError)   no server binary for the embedded store
    |   +-- StoreFull                            the server has no room in its memory, or on its disk
    |   +-- StoreForgot                          the store has lost what was in it, and again when it was put back
    |   +-- ValueTooLarge (ValueError)           a value exceeds what the store can take
    |   +-- MemoryLimitReached (MemoryError)     neither memory nor disk has room for a value
    |   +-- FrameError (ValueError)              stored bytes are foreign, truncated or of another version
    +-- AttachUnsupported (NotImplementedError)  a job cannot be gone on with here
    +-- ClientClosed (RuntimeError)              the client is closed, or of the process this one was forked from
    +-- JobFailed (RuntimeError)                 the job ended without its results, and not by a task's own exception
        +-- WorkerLost                           a worker process died, and what it ran cannot be run again
        |   +-- TaskLost                         a task's executors died too often, or it may run only once
        +-- TaskFailed                           a task failed with an exception that could not travel
        +-- JobCancelled                         somebody cancelled it
        |   +-- FutureCancelled (CancelledError) the same of one call; in wukong.futures
        |   +-- BudgetSpent                    it has used the executor time that it may
        +-- JobStalled (TimeoutError)            nothing moved before the deadline

Each also derives from the builtin given in brackets, so that existing `except` clauses hold. Messages say what, where,
why, and what to do next; all of them survive pickling.
"""


class WukongError(Exception):
    """Root of the tree."""


class ConfigError(WukongError, ValueError):
    """An option has a value that is not allowed; the message lists those that are."""


class MissingExtra(ConfigError, ImportError):
    """An optional package is needed; the message gives the install line."""


class AnnotationError(ConfigError):
    """A task is to run on workers that there are not, or needs more memory than there is; the message names it."""


class GraphError(WukongError, ValueError):
    """The graph cannot be run by anyone."""


class GraphCycle(GraphError, RuntimeError):
    """Tasks wait for each other; the message walks round the cycle."""


class MissingKey(GraphError, KeyError):
    """A key is asked for that the graph does not have; the message says by whom."""

    # KeyError would show the repr of the message.
    __str__ = Exception.__str__


class UnsupportedGraph(GraphError, NotImplementedError):
    """The graph needs something that this scheduler, or the chosen platform, does not have."""


class CannotTravel(WukongError, TypeError):
    """An object has to leave the process and cannot be pickled; the message gives the path to the culprit."""


class StoreError(WukongError):
    """A store could not do what was asked."""


class StoreUnavailable(StoreError, ConnectionError):
    """Nobody answers at the store's address, or the connection was lost; the message names it without credentials."""


class ServerNotFound(StoreError, FileNotFoundError):
    """There is no server binary for the embedded store; the message says where it was looked for."""


class StoreFull(StoreError):
    """The server has no room in its memory, or on its disk; the message gives the figures."""


class StoreForgot(StoreError):
    """The store has lost what was in it, more often than a job is opened again; the message says what."""


class ValueTooLarge(StoreError, ValueError):
    """A value exceeds what the store can take."""


# As with JobStalled, below: MemoryError has a `__new__` of its own.
class MemoryLimitReached(MemoryError, StoreError):
    """Neither the memory limit nor the disk has room for a value; the message gives the figures."""


class FrameError(StoreError, ValueError):
    """Stored bytes are not a frame of ours: foreign, truncated, or of another version."""


class AttachUnsupported(WukongError, NotImplementedError):
    """A job cannot be gone on with by another client: its executors have ended with its own; says what to do."""


class ClientClosed(WukongError, RuntimeError):
    """The client is closed, or was made in the process that this one was forked from."""


class JobFailed(WukongError, RuntimeError):
    """The job ended without its results, and not by a task's own exception."""


class WorkerLost(JobFailed):
    """A worker process died under what it ran.

    Attributes
    ----------
    pid : int or None
        Of the worker; None if it was never there.
    status : int or None
        Its exit status; minus the number of the signal that killed it; None if nobody knows.
    """

    pid: int | None = None
    status: int | None = None


class TaskLost(WorkerLost):
    """A task's executors died more often than is allowed, or it was marked `once` and its executor died."""


class TaskFailed(JobFailed):
    """A task failed with an exception that could not travel; the message carries its type, text and traceback."""


class JobCancelled(JobFailed):
    """The job was cancelled; the message says by whom or why."""


class BudgetSpent(JobCancelled):
    """The job has used the executor time that it may; the message says how far it came.

    Attributes
    ----------
    budget, spent : float
        Seconds of executor time that it might use, and that it had used when nothing more began.
    tasks : int
        How many were through.
    """

    budget: float = 0.0
    spent: float = 0.0
    tasks: int = 0


# TimeoutError comes first: tblib, where installed, unpickles by `__new__`, and RuntimeError's refuses an OSError.
class JobStalled(TimeoutError, JobFailed):
    """Nothing moved before the deadline; the message names what was waited for."""

"""What people say of a task beside what it does: the memory that it needs at once, and which workers may run it.

    memory="2 GB"           bytes, or text
    once=True               that it never runs twice knowingly
    workers="processes"     one name of `WORKERS`, or several
    allow_other_workers     whether others will do, too

Where Dask keeps annotations is the subject of `wukong.scheduler.dask.annotated`; that they hold, of
`wukong.platforms.local.admission` and `wukong.platforms.local.placement`.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from wukong.errors import AnnotationError, ConfigError
from wukong.sizes import parse_bytes

#: What workers may be called, and which they are. Those of a kind are alike and have no addresses.
WORKERS: Final = {"client": "threads", "threads": "threads", "processes": "processes"}


class Annotation(NamedTuple):
    """What is said of one task.

    Attributes
    ----------
    memory : int
        Bytes that it needs at once; 0 if nothing is said.
    workers : str or None
        ``threads`` or ``processes``; None if either will do.
    others : bool
        Whether, where there are no such workers, others will do.
    once : bool
        Whether it may never run twice.
    """

    memory: int = 0
    workers: str | None = None
    others: bool = False
    once: bool = False

    @property
    def apart(self) -> bool:
        """Whether it matters who begins the task, and when."""
        return bool(self.memory) or self.workers is not None


def read(name: Any, memory: Any = None, workers: Any = None, others: bool = False, once: bool = False) -> Annotation:
    """Return what is said of a task.

    Parameters
    ----------
    name : key
        Of the task, for messages.
    memory : int or str, optional
        Bytes, or such as ``"2 GB"``.
    workers : str, or several, optional
        Names of `WORKERS`.
    others : bool
        Whether others will do.
    once : bool
        Whether it may never run twice.

    Raises
    ------
    AnnotationError
        If a size cannot be read, or a name is none that there is.
    """
    try:
        needs = parse_bytes(memory, "memory") or 0
    except ConfigError as error:
        raise AnnotationError(f"of task {name!r}, {error}") from None
    if workers is None:
        return Annotation(needs, once=once)
    names = [workers] if isinstance(workers, str) else list(workers)
    unknown = [other for other in names if other not in WORKERS]
    if unknown and not others:
        raise AnnotationError(
            f"task {name!r} is to run on the workers {', '.join(map(repr, unknown))}, but workers of one machine have "
            f"no addresses; allowed are {', '.join(map(repr, WORKERS))}, or allow_other_workers=True beside"
        )
    kinds = {WORKERS[known] for known in names if known in WORKERS}
    return Annotation(needs, kinds.pop() if len(kinds) == 1 else None, others, once)


def agreed(notes: Mapping[Any, Annotation], usual: str, limit: int) -> dict[Any, Annotation]:
    """Return what there is to see to, where tasks are said to need something.

    Parameters
    ----------
    notes : mapping of key to Annotation
    usual : str
        Where tasks run of which nothing is said: ``threads``, ``processes``, or ``auto``.
    limit : int
        Bytes that all tasks at work may need together.

    Raises
    ------
    AnnotationError
        If a task alone needs more, or workers are missing.
    """
    found = {}
    for key, (memory, workers, others, once) in notes.items():
        if memory > limit:
            raise AnnotationError(
                f"task {key!r} needs {memory:,} bytes of memory at once, but all tasks together may have {limit:,}; "
                "cut it into smaller ones, correct its annotation, or raise the client's memory_limit"
            )
        if workers == "processes" and usual == "threads":
            if not others:
                raise AnnotationError(
                    f"task {key!r} is to run in processes, but this job has threads only; use granules='auto' (without "
                    "a store) or granules='processes', or annotate allow_other_workers=True"
                )
            workers = None
        if workers == usual:
            workers = None
        if memory or workers is not None or once:
            found[key] = Annotation(memory, workers, others, once)
    return found

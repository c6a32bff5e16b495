"""What a client writes down of a job in an external store, so that another can go on with it when this one has died.

It is a value of the job, beside the parts of its plan, and goes with them: at the end of the job, or when nobody has
touched them for long. Opening the job again is the business of `wukong.scheduler.watch`; this is what that takes.
"""

import os
from collections.abc import Hashable, Mapping
from copy import copy
from pathlib import Path
from typing import Any, Final, NamedTuple

from wukong import serialize
from wukong.errors import AttachUnsupported, StoreForgot
from wukong.executor.alone import Walk
from wukong.plan.codec import Encoded
from wukong.plan.reading import Plan
from wukong.scheduler.annotations import Annotation
from wukong.storage.values.base import ValueStore

#: Of the note among the values of a job.
NAME: Final = "note"


class Owner(NamedTuple):
    """A process: the boot of its machine, its number, and when it began. Empty where that cannot be found out."""

    boot: str
    pid: int
    began: str

    @property
    def alive(self) -> bool:
        """Whether it is known to live: on this machine, and not at its end."""
        return bool(self.boot) and self.boot == _boot() and self.began == _began(self.pid)


def owner() -> Owner:
    """Return this process."""
    return Owner(_boot(), os.getpid(), _began(os.getpid()))


class Note(NamedTuple):
    """What is known of a job.

    Attributes
    ----------
    owner : Owner
        Its client.
    epoch : int
        The last one under which it was opened, or was about to be.
    plan : Plan
        Without functions and literals, which only tasks need.
    outputs : list of keys
        Of the plan, in its order.
    walk : Walk
        What puts results together in the client, and what was asked for.
    known : mapping of key to value
        Results that were known before.
    notes : mapping of int to Annotation
        What is said of tasks.
    manifest, digests : bytes, list of str
        Of the plan as it was published, and of all its parts.
    """

    owner: Owner
    epoch: int
    plan: Plan
    outputs: list[Hashable]
    walk: Walk
    known: Mapping[Hashable, Any]
    notes: Mapping[int, Annotation]
    manifest: bytes
    digests: list[str]

    def write(self, values: ValueStore) -> None:
        """Put it into the value store of the job."""
        values.put(NAME, serialize.dumps(self).parts)

    def published(self, values: ValueStore) -> Encoded:
        """Return the plan as it was published.

        Raises
        ------
        StoreForgot
            If parts of it are gone.
        """
        parts = values.get(self.digests)
        blobs = {
            digest: serialize.Frame((part,), len(part))
            for digest, part in zip(self.digests, parts, strict=True)
            if part is not None
        }
        if len(blobs) < len(parts):
            raise StoreForgot(f"the store has lost {len(parts) - len(blobs)} parts of the plan; compute it again")
        return Encoded(self.manifest, "", blobs, {})


def read(values: ValueStore) -> Note | None:
    """Return the note of the job with this value store, if there is one.

    Raises
    ------
    AttachUnsupported
        If it cannot be read here.
    """
    (frame,) = values.get([NAME])
    if frame is None:
        return None
    try:
        note: Note = serialize.loads(frame, serialize.VALUE)
    except Exception as error:
        raise AttachUnsupported(
            f"what the client of this job left to go on by cannot be read here ({type(error).__name__}: {error}): "
            "go on where the same modules are, in the same versions, or remove the job by `wukong clean`"
        ) from error
    return note


def bare(plan: Plan) -> Plan:
    """Return a plan without its functions and literals."""
    columns = copy(plan.columns)
    columns.functions, columns.literals, columns.passed = [], [], {}
    return Plan(columns, plan.requested)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _began(pid: int) -> str:
    """Return when a process began, in ticks of its machine; nothing if it is at its end."""
    try:
        # After the name, which may have any characters in it: the state, and, 19 fields on, the time.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]

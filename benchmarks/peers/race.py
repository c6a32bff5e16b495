"""One row: all its contestants side by side, one call at a time, by rounds, and every result held against the truth.

The first call of each counts apart. Rounds go round-robin and begin with another contestant each time, so that what
else the machine does hits all of them. Whoever is slow makes fewer rounds than the others, at least
one; whoever is near the fastest, at least three.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import psutil

from benchmarks.peers.contestants import CONTESTANTS
from benchmarks.peers.host import end
from benchmarks.peers.rows import Row

ROOT = Path(__file__).parents[2]
#: Seconds until a contestant is given up: to get ready, for a call, and to end.
PATIENCE = 120.0
END = 20.0
#: Warm calls that whoever is within three times of the fastest makes, however long they take.
LEAST = 3


@dataclass(slots=True)
class Figures:
    """What one contestant took, in seconds; and, if it came to that, how it failed."""

    first: float | None = None
    warm: list[float] = field(default_factory=list)
    failed: str | None = None


class Failed(Exception):  # noqa: N818 - of a contestant, not of ours
    """A contestant is out."""


class Entry:
    """The process of a contestant at a row; of the truth, if it has no name.

    Parameters
    ----------
    name : str or None
        Who.
    row : Row
        What.
    size : tuple
        How much of it.
    workers : int
        By how many.
    scratch : Path
        An empty directory of its own: its home, and for its files and what it prints.
    """

    def __init__(self, name: str | None, row: Row, size: tuple[Any, ...], workers: int, scratch: Path) -> None:
        self.name = name
        self.figures = Figures()
        self._family: set[psutil.Process] = set()
        self._log = scratch / "printed"
        self._connection, theirs = Pipe()
        with theirs, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.peers.host", str(theirs.fileno())],
                cwd=ROOT,
                env=_environment(scratch),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._connection.send((name, row.name, size, workers, scratch))

    def answer(self, patience: float = PATIENCE) -> Any:
        """Return what the process says next.

        Raises
        ------
        Failed
            If it says nothing in time, or ends.
        """
        deadline = monotonic() + patience
        try:
            while not self._connection.poll(min(1.0, max(deadline - monotonic(), 0.0))):
                # Its workers may have been forked with the connection, and so keep it open.
                if self._process.poll() is not None and not self._connection.poll():
                    raise EOFError
                if monotonic() > deadline:
                    raise Failed(f"gave no answer for {patience:.0f} s")
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise Failed(f"ended without a word; it had printed: {self._printed()}") from None
        self._look()
        return answer

    def call(self) -> tuple[float, Any]:
        """Have the work done once; return seconds and the result."""
        self._connection.send("call")
        answer = self.answer()
        if isinstance(answer, str):
            raise Failed(answer)
        seconds, result = answer
        return seconds, result

    def stop(self) -> None:
        """Tell it to stop, without waiting."""
        with suppress(OSError):
            self._connection.send("stop")

    def end(self) -> None:
        """Wait for the process to end; what does not, or was left behind by one that died, is killed."""
        self._look()
        try:
            self._process.wait(END)
        except subprocess.TimeoutExpired:
            self.figures.failed = self.figures.failed or f"did not stop within {END:.0f} s"
            _kill(psutil.Process(self._process.pid))
        end(list(self._family))
        self._process.wait(END)
        self._connection.close()

    def _look(self) -> None:
        """Note who belongs to the process: when it has died nobody knows any more."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            self._family.update([process, *process.children(recursive=True)])

    def _printed(self) -> str:
        return self._log.read_text(errors="replace")[-300:].strip() or "nothing"


def race(
    row: Row,
    size: tuple[Any, ...],
    names: Sequence[str],
    rounds: int,
    budget: float,
    workers: int,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Figures]:
    """Return the figures of all contestants at one row.

    Parameters
    ----------
    row, size : Row, tuple
        What, and how much of it.
    names : sequence of str
        Who.
    rounds : int
        Most warm calls of each.
    budget : float
        Seconds that the warm calls of a contestant may take together; it makes one in any case.
    workers : int
        How many work at once.
    tell : callable, optional
        Is told who is at work.
    """
    with _entries(row, size, names, workers) as (truth, entries):
        expected = truth.answer()
        for entry in entries:
            _attempt(entry, lambda entry=entry: _be_ready(entry))
        for turn in range(rounds + 1):
            begin = turn % max(len(entries), 1)
            for entry in entries[begin:] + entries[:begin]:
                if entry.figures.failed is None and (turn <= 1 or _again(entry, entries, budget)):
                    tell(f"{row.name}, round {turn}: {entry.name}")
                    _attempt(
                        entry, lambda entry=entry, turn=turn: _take(entry, _sample(expected, entry, row), warm=turn > 0)
                    )
    return {entry.name or "": entry.figures for entry in entries}


def same(found: Any, expected: Any) -> bool:
    """Whether a result is the right one: exactly for integers and words, to eight digits for floats."""
    import numpy as np

    if hasattr(expected, "sort_index"):
        found, expected = (thing.sort_index().astype(float) for thing in (found, expected))
        return list(found.index) == list(expected.index) and same(found.to_numpy(), expected.to_numpy())
    if isinstance(expected, (float, np.floating, np.ndarray)):
        return np.shape(found) == np.shape(expected) and bool(np.allclose(found, expected, rtol=1e-8))
    if isinstance(expected, list):
        return list(found) == expected
    return bool(found == expected)


def _kill(host: psutil.Process) -> None:
    """Keep a process from starting more, end all it has, and it last: whoever is orphaned till then becomes its own."""
    host.suspend()
    deadline = monotonic() + END
    while monotonic() < deadline:
        living = [child for child in host.children(recursive=True) if _lives(child)]
        if not living:
            break
        for child in living:
            with suppress(psutil.NoSuchProcess):
                child.kill()
    host.kill()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _again(entry: Entry, entries: Sequence[Entry], budget: float) -> bool:
    """Whether a contestant makes one more call: if there is time, or if it is one of those that matter."""
    warm = entry.figures.warm
    if sum(warm) * (1 + 1 / len(warm)) <= budget:
        return True
    best = min(other.figures.warm[0] for other in entries if other.figures.warm)
    return len(warm) < LEAST and warm[0] <= 3 * best


def _be_ready(entry: Entry) -> None:
    answer = entry.answer()
    if answer != "ready":
        raise Failed(answer)


def _sample(expected: Any, entry: Entry, row: Row) -> Any:
    """Return what comes out of the calls that a contestant makes."""
    sampled = CONTESTANTS[entry.name or ""].sampled.get(row.way, 1)
    return expected[::sampled] if sampled > 1 else expected


def _take(entry: Entry, expected: Any, *, warm: bool) -> None:
    seconds, result = entry.call()
    if not same(result, expected):
        raise Failed(f"WRONG: {str(result)[:60]!r} for {str(expected)[:60]!r}")
    if warm:
        entry.figures.warm.append(seconds)
    else:
        entry.figures.first = seconds


def _attempt(entry: Entry, step: Callable[[], None]) -> None:
    try:
        step()
    except (Failed, OSError) as error:
        entry.figures.failed = str(error)


@contextmanager
def _entries(
    row: Row, size: tuple[Any, ...], names: Sequence[str], workers: int
) -> Iterator[tuple[Entry, list[Entry]]]:
    """Start the processes of all, and end them and whatever they started."""
    entries: list[Entry] = []
    # Short, for there are paths of sockets in it; and Ray may still write while it is removed.
    with TemporaryDirectory(prefix="wb", ignore_cleanup_errors=True) as scratch:
        try:
            for number, name in enumerate((None, *names)):
                place = Path(scratch, str(number))
                place.mkdir()
                entries.append(Entry(name, row, size, workers, place))
            yield entries[0], entries[1:]
        finally:
            for entry in entries:
                entry.stop()
            for entry in entries:
                entry.end()


def _environment(scratch: Path) -> dict[str, str]:
    """Return what all contestants have in their environment: one BLAS thread a worker, and a place for their files."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "RAY_USAGE_STATS_ENABLED": "0",
    }

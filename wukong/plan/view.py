"""Reading a plan from its manifest: segments are fetched as they are needed, functions once."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from wukong import serialize
from wukong.errors import FrameError
from wukong.plan.codec import Manifest, SegmentBody, from_bytes
from wukong.plan.columns import Columns
from wukong.plan.program import Call, Program
from wukong.plan.reading import Reading

#: Gives the blobs with these digests, in this order.
Fetch = Callable[[list[str]], Sequence[serialize.Buffer]]


class PlanView(Reading):
    """A plan that is read from its blobs.

    Segments and functions stay once they are loaded, but no longer than the view: what a pickle refers to by its name
    may be another thing in the next job, and a function may hold much memory. Several threads may share a view: at
    worst a segment is loaded twice.

    Parameters
    ----------
    manifest : bytes-like
        From `wukong.plan.codec.encode`.
    fetch : callable
        Called with a list of digests, returns their blobs.

    Raises
    ------
    FrameError
        If the manifest or a blob is not what it should be.
    """

    __slots__ = ("_digests", "_fetch", "_functions", "_latest", "_literals", "_segments", "_starts")

    def __init__(self, manifest: serialize.Buffer, fetch: Fetch) -> None:
        body = Manifest(*serialize.loads(manifest, serialize.PLAN))
        super().__init__(body.size, from_bytes(body.requested))
        self._starts = from_bytes(body.starts)
        self._digests = body.digests
        self._fetch = fetch
        self._segments: dict[int, Columns] = {}
        self._latest = Columns(), 0, 0
        self._literals: dict[str, Any] = {}
        self._functions: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<View of a plan of {self.size} tasks, {len(self._segments)} of {len(self._starts)} segments loaded>"

    @property
    def leaves(self) -> list[int]:
        """Tasks that run without inputs, ascending. Loads the whole plan."""
        return self._everywhere(Columns.leaves)

    @property
    def given(self) -> list[int]:
        """Tasks whose values are supplied, ascending. Loads the whole plan."""
        return self._everywhere(Columns.given)

    def _everywhere(self, question: Callable[[Columns], list[int]]) -> list[int]:
        self.load(self._starts)
        return [start + i for n, start in enumerate(self._starts) for i in question(self._segments[n])]

    def segment_of(self, task: int) -> int:
        """Return the number of the segment that holds `task`."""
        if not 0 <= task < self.size:
            raise IndexError(f"task {task} of a plan of {self.size} tasks")
        return bisect_right(self._starts, task) - 1

    def at(self, task: int) -> tuple[Columns, int]:
        """Return the columns that hold `task`, and its place in them; load them if need be."""
        columns, first, end = self._latest
        if first <= task < end:
            return columns, task - first
        segment = self.segment_of(task)
        found = self._segments.get(segment)
        if found is None:
            self.load((task,))
            found = self._segments[segment]
        first = self._starts[segment]
        # Neighbours are asked for again and again. Of several threads each writes what is right for all.
        self._latest = found, first, first + len(found.flags)
        return found, task - first

    def loaded(self, task: int) -> bool:
        """Whether `task` can be asked about without I/O."""
        _, first, end = self._latest
        return first <= task < end or self.segment_of(task) in self._segments

    def load(self, tasks: Iterable[int]) -> None:
        """Load the segments that hold these tasks: one fetch, and a second one for functions not seen before."""
        lacking = sorted({self.segment_of(task) for task in tasks} - self._segments.keys())
        if not lacking:
            return
        blobs = self._fetch([self._digests[segment] for segment in lacking])
        bodies = [SegmentBody(*serialize.loads(blob, serialize.PLAN)) for blob in blobs]
        functions = self._functions_of({entry[0]: entry[1] for body in bodies for entry in body.functions})
        for segment, body in zip(lacking, bodies, strict=True):
            if body.first != self._starts[segment] or len(body.flags) != self._length(segment):
                raise FrameError(f"segment {segment} does not hold the tasks that the manifest says. Encode it again.")
            self._segments[segment] = self._decode(body, functions)

    def fetch_literals(self, columns: Columns, row: Sequence[int]) -> None:
        """Fetch those literals of an operand row that are still pending."""
        pending = columns.pending
        lacking = {~r: digest for r in row if (digest := pending.get(~r)) is not None}
        if not lacking:
            return
        digests = [digest for digest in dict.fromkeys(lacking.values()) if digest not in self._literals]
        if digests:
            for digest, blob in zip(digests, self._fetch(digests), strict=True):
                self._literals[digest] = serialize.loads(blob, serialize.VALUE)
        for number, digest in lacking.items():
            columns.literals[number] = self._literals[digest]
            pending.pop(number, None)

    def _length(self, segment: int) -> int:
        ends = [*self._starts[segment + 1 : segment + 2], self.size]
        return ends[0] - self._starts[segment]

    def _functions_of(self, packed: dict[str, bytes | str]) -> dict[str, Any]:
        """Return functions by their digests: seen before, from the segment, or from a blob."""
        known = self._functions
        frames: dict[str, Any] = {digest: frame for digest, frame in packed.items() if digest not in known}
        distant = [digest for digest, frame in frames.items() if isinstance(frame, str)]
        if distant:
            frames.update(zip(distant, self._fetch(distant), strict=True))
        for digest, frame in frames.items():
            # Another thread may have been first; all are to use the same object.
            known.setdefault(digest, serialize.loads(frame, serialize.FUNCTION))
        return known

    def _decode(self, body: SegmentBody, functions: dict[str, Any]) -> Columns:
        columns = Columns()
        values = from_bytes(body.columns)
        at = 0
        for name, length in zip(Columns.ARRAYS, body.lengths, strict=True):
            setattr(columns, name, values[at : at + length])
            at += length
        columns.flags = bytearray(body.flags)
        columns.keys, columns.members = body.keys, body.members
        columns.programs = [Program([Call(*call) for call in calls], slots) for calls, slots in body.programs]
        columns.functions = [functions[digest] for digest, _ in body.functions]
        columns.kinds = body.kinds
        columns.literals = list(body.scalars)
        for packed in body.literals:
            if isinstance(packed, str):
                columns.pending[len(columns.literals)] = packed
                columns.literals.append(None)
            else:
                columns.literals.append(serialize.loads(packed, serialize.VALUE))
        return columns

"""A plan as bytes: a manifest and content-addressed blobs. Where those are kept is not known here; `view` reads them.

    manifest      size, requested tasks, where each segment starts, its digest
    segment       columns as little-endian int32; keys, programs and small literals pickled together;
                  functions and larger literals packed in it if small, else the digest of their blob
    blob          one function, or one large literal

A digest is blake2b of the frame, so the same content has the same name, is stored once, and may be kept for ever by
whoever has it. All are frames (see `wukong.serialize`), each within the reach of a MAC of its own.
"""

import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Final, NamedTuple

from wukong import serialize
from wukong.plan.columns import Columns, Ints
from wukong.plan.literals import is_scalar
from wukong.plan.reading import Plan
from wukong.plan.segments import MOST_ENTRIES, MOST_TASKS, cut
from wukong.travel import check_travels, culprit

#: Functions and literals whose frames have more bytes than this become blobs of their own.
HOIST: Final = 4096

#: The frame itself, or the digest of the blob that it is.
Packed = bytes | str


class Encoded(NamedTuple):
    """A plan as bytes.

    Attributes
    ----------
    manifest : bytes
        What a view starts from.
    digest : str
        Of the manifest, and so of the whole plan.
    blobs : dict of str to Frame
        Segments, functions and literals by their digests, as sequences of buffers; large literals are not copied.
    stuck : dict of int to str
        Tasks that cannot travel, each with the reason: none, unless `encode` was lenient.
    """

    manifest: bytes
    digest: str
    blobs: dict[str, serialize.Frame]
    stuck: dict[int, str]


class SegmentBody(NamedTuple):
    """What the frame of a segment holds. Programs and rows count functions and literals within the segment.

    `kinds` are the numbers of the programs in the whole plan.
    """

    first: int
    lengths: tuple[int, ...]
    columns: bytes
    flags: bytes
    keys: list[Hashable]
    members: dict[int, tuple[Hashable, ...]]
    programs: list[tuple[tuple[tuple[Any, ...], ...], int]]
    kinds: list[int]
    functions: list[tuple[str, Packed]]
    scalars: list[Any]
    literals: list[Packed]


class Manifest(NamedTuple):
    """What the frame of a manifest holds; `starts` and `requested` are little-endian int32."""

    size: int
    requested: bytes
    starts: bytes
    digests: list[str]


def digest_of(parts: Iterable[serialize.Buffer]) -> str:
    """Return the name of some content: 32 hexadecimal digits."""
    state = blake2b(digest_size=16)
    for part in parts:
        state.update(part)
    return state.hexdigest()


def to_bytes(values: Ints) -> bytes:
    """Return integers as little-endian int32."""
    if sys.byteorder == "big":  # pragma: no cover
        values = array("i", values)
        values.byteswap()
    return values.tobytes()


def from_bytes(buffer: serialize.Buffer) -> Ints:
    """Return the integers that `to_bytes` wrote."""
    values: Ints = array("i")
    values.frombytes(buffer)
    if sys.byteorder == "big":  # pragma: no cover
        values.byteswap()
    return values


def encode(
    plan: Plan,
    most_tasks: int = MOST_TASKS,
    most_entries: int = MOST_ENTRIES,
    hoist: int = HOIST,
    lenient: bool = False,
) -> Encoded:
    """Pack a plan.

    Parameters
    ----------
    plan : Plan
        What to pack.
    most_tasks, most_entries : int
        Size of segments, see `wukong.plan.segments.cut`.
    hoist : int
        Functions and literals of more packed bytes become blobs of their own.
    lenient : bool
        Name the tasks that cannot travel rather than raise: whoever reads the plan must leave them to others.

    Raises
    ------
    CannotTravel
        If a function or a literal cannot be pickled; the message names a task, the argument, and the culprit in it.
    """
    return _Encoder(plan, hoist, lenient).encode(cut(plan.columns, most_tasks, most_entries))


class _Encoder:
    def __init__(self, plan: Plan, hoist: int, lenient: bool) -> None:
        self.plan = plan
        self.columns = plan.columns
        self.hoist = hoist
        self.lenient = lenient
        self.stuck_functions: dict[int, str] = {}
        self.stuck_literals: dict[int, str] = {}
        self.blobs: dict[str, serialize.Frame] = {}
        self._functions: dict[int, tuple[str, Packed]] = {}
        self._literals: dict[int, Packed] = {}

    def encode(self, starts: list[int]) -> Encoded:
        digests = []
        for first, end in pairwise([*starts, self.plan.size]):
            frame = serialize.dumps(tuple(self._segment(first, end)), serialize.PLAN)
            digests.append(self._keep(digest_of(frame), frame))
        requested, places = to_bytes(array("i", self.plan.requested)), to_bytes(array("i", starts))
        manifest = tuple(Manifest(self.plan.size, requested, places, digests))
        packed = bytes(serialize.dumps(manifest, serialize.PLAN))
        return Encoded(packed, digest_of([packed]), self.blobs, self._stuck())

    def _segment(self, first: int, end: int) -> SegmentBody:
        whole = self.columns
        programs, kinds, functions, program = self._programs(whole.program[first:end])
        scalars, literals, rows = self._rows(whole.rows[whole.row_start[first] : whole.row_start[end]])
        arrays = {"program": program, "rows": rows, "heights": whole.heights[first:end]}
        for starts, names in (
            ("row_start", ()),
            ("input_start", ("inputs", "consumers")),
            ("child_start", ("children", "indegrees")),
        ):
            column: Ints = getattr(whole, starts)[first : end + 1]
            base, stop = column[0], column[-1]
            arrays[starts] = array("i", [start - base for start in column])
            for name in names:
                arrays[name] = getattr(whole, name)[base:stop]
        ordered = [arrays[name] for name in Columns.ARRAYS]
        names_seen: dict[Any, Any] = {}
        members = whole.members
        return SegmentBody(
            first,
            tuple(map(len, ordered)),
            b"".join(map(to_bytes, ordered)),
            bytes(whole.flags[first:end]),
            _shared(whole.keys[first:end], names_seen),
            {t - first: tuple(_shared(members[t], names_seen)) for t in range(first, end) if t in members},
            programs,
            kinds,
            functions,
            scalars,
            literals,
        )

    def _programs(self, column: Ints) -> tuple[list[Any], list[int], list[tuple[str, Packed]], Ints]:
        """Return the programs of a segment in order of use, their kinds, functions, and the column that counts them."""
        programs: dict[Any, int] = {}
        kinds: list[int] = []
        functions: dict[str, int] = {}
        packed: list[tuple[str, Packed]] = []
        local: dict[int, int] = {}
        for number in dict.fromkeys(column):
            program = self.columns.programs[number]
            calls = []
            for func, args, kwnames, member in program.calls:
                entry = self._function(func)
                at = functions.setdefault(entry[0], len(functions))
                if at == len(packed):
                    packed.append(entry)
                calls.append((at, args, kwnames, member))
            name = tuple(calls), program.slots, self.columns.passed.get(number)
            local[number] = programs.setdefault(name, len(programs))
            if len(kinds) < len(programs):
                kinds.append(self.columns.kinds[number])
        return [name[:2] for name in programs], kinds, packed, array("i", map(local.__getitem__, column))

    def _rows(self, rows: Ints) -> tuple[list[Any], list[Packed], Ints]:
        """Return the scalars and the other literals of a segment in order of use, and the rows that count them."""
        used = [r for r in dict.fromkeys(rows) if r < 0]
        if not used:
            return [], [], rows
        table = self.columns.literals
        scalars = [r for r in used if is_scalar(table[~r])]
        others = [r for r in used if not is_scalar(table[~r])]
        local = {r: ~i for i, r in enumerate([*scalars, *others])}
        return (
            [table[~r] for r in scalars],
            [self._literal(~r) for r in others],
            array("i", [local[r] if r < 0 else r for r in rows]),
        )

    def _function(self, number: int) -> tuple[str, Packed]:
        """Return the digest of a function and the form it is sent in."""
        entry = self._functions.get(number)
        if entry is None:
            function = self.columns.functions[number]
            frame = self._pack(function, serialize.FUNCTION, lambda: self._user(number), self.stuck_functions, number)
            digest = digest_of(frame)
            entry = self._functions[number] = digest, self._placed(digest, frame)
        return entry

    def _literal(self, number: int) -> Packed:
        """Return the form that a literal is sent in."""
        packed = self._literals.get(number)
        if packed is None:
            literal = self.columns.literals[number]
            frame = self._pack(literal, serialize.VALUE, lambda: self._reader(number), self.stuck_literals, number)
            packed = self._literals[number] = self._placed(digest_of(frame), frame)
        return packed

    def _placed(self, digest: str, frame: serialize.Frame) -> Packed:
        return bytes(frame) if frame.nbytes <= self.hoist else self._keep(digest, frame)

    def _keep(self, digest: str, frame: serialize.Frame) -> str:
        self.blobs.setdefault(digest, frame)
        return digest

    def _pack(
        self, obj: Any, kind: int, what: Callable[[], str], stuck: dict[int, str], number: int
    ) -> serialize.Frame:
        try:
            return serialize.dumps(obj, kind)
        except Exception:
            if not self.lenient:
                return check_travels(obj, what(), kind)
            path, part = culprit(obj)
            stuck[number] = " -> ".join([*path, f"{type(part).__qualname__} cannot be pickled"])
            return serialize.dumps(None, kind)

    def _stuck(self) -> dict[int, str]:
        """Return the tasks that call a function, or read a literal, that cannot be packed."""
        columns, functions, literals = self.columns, self.stuck_functions, self.stuck_literals
        if not (functions or literals):
            return {}
        programs = {
            number: functions[call.func]
            for number, program in enumerate(columns.programs)
            for call in program.calls
            if call.func in functions
        }
        found = {task: programs[number] for task, number in enumerate(columns.program) if number in programs}
        rows = enumerate(map(columns.row, range(self.plan.size if literals else 0)))
        found.update((task, literals[~r]) for task, row in rows for r in row if ~r in literals)
        return found

    # --- errors -------------------------------------------------------------------------------------------------------

    def _user(self, function: int) -> str:
        """Name a task that calls a function."""
        for task in range(self.plan.size):
            for call in self.plan.program(task).calls:
                if call.func == function:
                    return f"task {self.plan.members(task)[call.member]!r}: its function"
        raise AssertionError("no task calls this function")

    def _reader(self, literal: int) -> str:
        """Name a task and its argument that is a literal."""
        place = self.columns.rows.index(~literal)
        task = bisect_right(self.columns.row_start, place) - 1
        slot = place - self.columns.row_start[task]
        for call in self.plan.program(task).calls:
            if slot in call.args:
                at = call.args.index(slot)
                named = at - (len(call.args) - len(call.kwnames))
                argument = f"argument {call.kwnames[named]}" if named >= 0 else f"argument {at}"
                function = self.columns.functions[call.func]
                name = getattr(function, "__qualname__", type(function).__qualname__)
                return f"task {self.plan.members(task)[call.member]!r}: {argument} of {name}"
        return f"task {self.plan.key(task)!r}: its value"


def _shared(keys: Iterable[Any], names: dict[Any, Any]) -> list[Hashable]:
    """Return keys in which equal names are one object, so that equal keys give equal bytes, and fewer of them."""
    shared = names.setdefault
    return [
        (shared(key[0], key[0]), *key[1:]) if type(key) is tuple and key and type(key[0]) is str else shared(key, key)
        for key in keys
    ]

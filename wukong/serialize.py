"""The frame of everything that is stored or sent: values, plans, functions, errors. Not where it is stored.

    offset  0        4        5     6      8              12        16      48               56
            magic    version  kind  flags  buffer count   reserved  MAC     pickle length    frame length
            b"WKNG"  u8       u8    u16    u32            u32       32 B    u64              u64
           64: length of each buffer (u64); the pickle; padding; each buffer, from a multiple of 64

Objects are pickled with protocol 5 and large contiguous memory (NumPy arrays, Arrow columns) stays out of the pickle:
dumping copies none of it, and none of a large `bytes` or `bytearray` either; loading one of these copies it once, since
it cannot be a view of other memory. The MAC is zero until frames are signed.

**Who owns the memory.** Loaded from a writable buffer (a bytearray that was received into), arrays are views of that
buffer, writable, and nothing is copied; such a buffer must be loaded once only. Loaded from a read-only one (bytes),
each array that was writable is copied once and owns its memory, so one stored frame may be loaded many times and tasks
that work in place stay apart. A frame refers to the memory of the object it was dumped from until it is written.
"""

import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from typing import Any, Final, NamedTuple, TypeAlias

import cloudpickle

from wukong.errors import FrameError

Buffer: TypeAlias = bytes | bytearray | memoryview

# What a frame holds.
VALUE: Final = 0
PLAN: Final = 1
FUNCTION: Final = 2
ERROR: Final = 3

_MAGIC: Final = b"WKNG"
_VERSION: Final = 1
_HEAD: Final = Struct("<4sBBHII32sQQ")
_NO_MAC: Final = bytes(32)
#: Where the MAC stands in the first part of a frame.
MAC: Final = slice(16, 48)
_ALIGN: Final = 64
_PADDING: Final = bytes(_ALIGN)
_STRINGS: Final = (bytes, bytearray)
# From here on a copy costs more than a pickler with a file of its own.
_LARGE: Final = 64 * 1024


class Frame(Sequence[Buffer]):
    """A frame in parts, to be written one after the other.

    Attributes
    ----------
    parts : tuple of buffers
        Header and pickle first; then the buffers, which are still the memory of the object.
    nbytes : int
        Their length together.
    """

    __slots__ = ("nbytes", "parts")

    def __init__(self, parts: tuple[Buffer, ...], nbytes: int) -> None:
        self.parts = parts
        self.nbytes = nbytes

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: Any) -> Any:
        return self.parts[index]

    def __iter__(self) -> Iterator[Buffer]:
        return iter(self.parts)

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)


def dumps(obj: Any, kind: int = VALUE) -> Frame:
    """Pack an object.

    Parameters
    ----------
    obj : object
        Pickled by `pickle`; by `cloudpickle` if that fails or if the pickle would refer to ``__main__`` (or to
        ``__mp_main__``, its name in processes of `multiprocessing`), which is another module where it is loaded; always
        by `cloudpickle` for `FUNCTION`.
    kind : int
        `VALUE`, `PLAN`, `FUNCTION` or `ERROR`; `loads` can insist on it.

    Raises
    ------
    Exception
        Whatever pickling raises. `wukong.travel.culprit` finds the culprit.
    """
    if type(obj) in _STRINGS and len(obj) > _LARGE and kind != FUNCTION:
        return _string(obj, kind)
    buffers: list[pickle.PickleBuffer] = []
    if kind == FUNCTION:
        body = _dumps_whole(obj, buffers.append)
    else:
        try:
            body = pickle.dumps(obj, protocol=5, buffer_callback=buffers.append)
            portable = b"_main__" not in body
        except Exception:
            portable = False
        if not portable:
            buffers.clear()
            body = _dumps_whole(obj, buffers.append)
    if not buffers:
        nbytes = 64 + len(body)
        head = _HEAD.pack(_MAGIC, _VERSION, kind, 0, 0, 0, _NO_MAC, len(body), nbytes)
        return Frame((head + body,), nbytes)
    try:
        raw = [buffer.raw() for buffer in buffers]
    except BufferError:  # not contiguous: its owner left the copying to us
        return _with_buffers(_dumps_whole(obj, None), [], kind)
    return _with_buffers(body, raw, kind)


def _dumps_whole(obj: Any, callback: Callable[[pickle.PickleBuffer], Any] | None) -> bytes:
    main = sys.modules.get("__mp_main__")
    if main is not None and main.__name__ not in cloudpickle.list_registry_pickle_by_value():
        cloudpickle.register_pickle_by_value(main)
    body: bytes = cloudpickle.dumps(obj, protocol=5, buffer_callback=callback)
    return body


def _string(obj: Any, kind: int) -> Frame:
    """Pack bytes as a pickle in parts, one of which they are: in one piece it would take a copy, and a search in it."""
    parts: list[Buffer] = []
    pickle.Pickler(_Parts(parts.append), 5).dump(obj)
    length = sum(map(len, parts))
    parts[0] = _HEAD.pack(_MAGIC, _VERSION, kind, 0, 0, 0, _NO_MAC, length, 64 + length) + parts[0]
    return Frame(tuple(parts), 64 + length)


class _Parts(NamedTuple):
    """A file that keeps what is written as it comes; the pickler hands large bytes over as they are."""

    write: Callable[[Buffer], None]


def _with_buffers(body: bytes, raw: list[memoryview], kind: int) -> Frame:
    lengths = Struct(f"<{len(raw)}Q").pack(*(view.nbytes for view in raw))
    nbytes = 64 + len(lengths) + len(body)
    parts: list[Buffer] = [b""]
    for view in raw:
        gap = -nbytes % _ALIGN
        if gap:
            parts.append(_PADDING[:gap])
        parts.append(view)
        nbytes += gap + view.nbytes
    parts[0] = _HEAD.pack(_MAGIC, _VERSION, kind, 0, len(raw), 0, _NO_MAC, len(body), nbytes) + lengths + body
    return Frame(tuple(parts), nbytes)


def loads(buffer: Buffer, kind: int | None = None) -> Any:
    """Unpack a frame; see the module's docstring for who owns the memory then.

    Parameters
    ----------
    buffer : bytes-like
        One whole frame and nothing else.
    kind : int, optional
        Refuse a frame of another kind.

    Raises
    ------
    FrameError
        If this is not a frame, is truncated or too long, or is of another version or kind.
    """
    view = memoryview(buffer).cast("B")
    head = _HEAD.unpack_from(view) if view.nbytes >= 64 else (b"",) * 9
    magic, version, holds, _, count, _, _, length, nbytes = head
    if magic != _MAGIC:
        raise FrameError(f"these {view.nbytes} bytes are not a frame of Wukong's. Check which keys this store holds.")
    if version != _VERSION:
        raise FrameError(f"frame of version {version}, but this is version {_VERSION}. Run one version of wukong.")
    if nbytes != view.nbytes:
        raise FrameError(f"frame of {nbytes} bytes, but {view.nbytes} were received. It was truncated or overwritten.")
    if kind is not None and holds != kind:
        raise FrameError(f"frame of kind {holds}, but kind {kind} was expected. Something else has this name.")
    start = 64 + 8 * count
    end = start + length
    if end > nbytes:
        raise FrameError(f"frame of {nbytes} bytes whose pickle would end at {end}. It was damaged.")
    if not count:
        return pickle.loads(view[64:])
    raw: list[Buffer] = []
    lengths = Struct(f"<{count}Q").unpack_from(view, 64)
    at = end
    for size in lengths:
        at += -at % _ALIGN
        part = view[at : at + size]
        raw.append(bytearray(part) if view.readonly else part)
        at += size
    if at != nbytes:
        raise FrameError(f"frame of {nbytes} bytes whose buffers end at {at}. It was damaged.")
    return pickle.loads(view[start:end], buffers=raw)

"""When two literals of a graph are the same one, so that it is kept and sent once."""

from typing import Any, Final

#: Types of which equal values of the same type cannot be told apart.
_EXACT: Final = frozenset((int, str, bytes, bool, type(None), type(...)))
#: Of these, values are equal that differ (0.0 and -0.0) and differ that are the same (NaN): their text decides.
_BY_TEXT: Final = frozenset((float, complex))
_WIDEST: Final = 16
_LONGEST: Final = 256


def identity(value: Any) -> Any:
    """Return a hashable name of a literal: equal names mean that one may stand for the other.

    Scalars, and short tuples and slices of such, are named by type and value, so ``1``, ``True`` and ``1.0`` stay apart
    as do ``0.0`` and ``-0.0``. Everything else is named by what it is in memory; whoever keeps the name has to keep the
    object alive.
    """
    kind = type(value)
    if kind in _EXACT:
        return kind, value
    if kind in _BY_TEXT:
        return kind, repr(value)
    if kind is tuple and len(value) <= _WIDEST:
        return (tuple, *map(identity, value)) if all(type(v) is not tuple for v in value) else id(value)
    if kind is slice:
        return (slice, *map(identity, (value.start, value.stop, value.step)))
    return id(value)


def is_scalar(value: Any) -> bool:
    """Whether a literal is so small that it is sent as it is: a short scalar, or a short tuple or slice of such."""
    kind = type(value)
    if kind is str or kind is bytes:
        return len(value) <= _LONGEST
    if kind is tuple:
        return len(value) <= _WIDEST and all(type(v) is not tuple and is_scalar(v) for v in value)
    if kind is slice:
        return is_scalar(value.start) and is_scalar(value.stop) and is_scalar(value.step)
    return kind in _EXACT or kind in _BY_TEXT

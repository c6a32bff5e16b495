"""Functions as they are sent to workers: packed at each call that might see another function than the last one did.

A function that is known by its name is sent as that name, and found under it where it runs. Any other is sent whole,
with what its closure captured and the globals it names; these may change from one call to the next, so it is packed
anew (100 us) unless all of that are things that cannot change: numbers, strings, modules, functions of the same kind.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from operator import is_
from threading import Lock
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final, NamedTuple

import cloudpickle

from wukong import serialize
from wukong.bytecode import read
from wukong.origin import find
from wukong.platforms.local.known import Parcel
from wukong.travel import check_travels

#: Functions that are kept packed.
_MOST: Final = 256
_DEEPEST: Final = 4
#: Modules that are others, or none, where functions are loaded.
_NOWHERE: Final = (None, "__main__", "__mp_main__")
_ATOMS: Final = frozenset((int, float, complex, bool, str, bytes, type(None), type(Ellipsis), type(NotImplemented)))


class Function(NamedTuple):
    """A packed function.

    Attributes
    ----------
    parcel : Parcel
    name : str
        For messages.
    by_name : bool
        Whether it is found where it runs, rather than sent.
    """

    parcel: Parcel
    name: str
    by_name: bool


class Functions:
    """Packs functions. Safe to use from any thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[list[Any], Function]] = OrderedDict()
        self._lock = Lock()

    def pack(self, function: Callable[..., Any]) -> Function:
        """Return a function as it is now.

        Raises
        ------
        CannotTravel
            If it cannot be pickled.
        """
        marks: list[Any] = []
        if not _is_settled(function, marks, 0):
            return _pack(function)
        with self._lock:
            kept = self._kept.get(id(function))
        # What is kept is alive, so nothing else has its number.
        if kept is not None and len(marks) == len(kept[0]) and all(map(is_, marks, kept[0])):
            return kept[1]
        packed = _pack(function)
        with self._lock:
            self._kept[id(function)] = marks, packed
            if len(self._kept) > _MOST:
                self._kept.popitem(last=False)
        return packed


def _pack(function: Callable[..., Any]) -> Function:
    name = name_of(function)
    frame = bytes(check_travels(function, f"the function {name}", serialize.FUNCTION))
    return Function(Parcel(blake2b(frame, digest_size=16).digest(), frame), name, _goes_by_name(function))


def name_of(function: Callable[..., Any]) -> str:
    """Return how messages call a function."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def _goes_by_name(function: Any) -> bool:
    """Whether pickling it gives its name and nothing else."""
    module = getattr(function, "__module__", None)
    if module in (None, "__main__", "__mp_main__") or not isinstance(
        function, FunctionType | BuiltinFunctionType | type
    ):
        return False
    by_value = cloudpickle.list_registry_pickle_by_value()
    if by_value and any(module == name or module.startswith(name + ".") for name in by_value):
        return False
    return find(function) is function  # type: ignore[arg-type]  # it asks for no more than a name


def _is_settled(thing: Any, marks: list[Any], depth: int) -> bool:
    """Whether pickling a thing gives the same as long as `marks`, which are added, are the same objects."""
    marks.append(thing)
    kind = type(thing)
    if kind in _ATOMS:
        return True
    if kind is ModuleType:
        return sys.modules.get(thing.__name__) is thing
    if kind is tuple:
        return all(_is_settled(item, marks, depth) for item in thing)
    if _goes_by_name(thing):
        return True
    return kind is FunctionType and depth < _DEEPEST and _is_settled_function(thing, marks, depth + 1)


def _is_settled_function(function: FunctionType, marks: list[Any], depth: int) -> bool:
    if function.__dict__ or function.__kwdefaults__:
        return False
    # Equal code is not the same code: it may come from other lines.
    marks.append(function.__code__)
    if not _is_settled(function.__defaults__, marks, depth):
        return False
    names = function.__globals__
    for name in read(function.__code__).names:
        if name in names and names[name] is not function and not _is_settled(names[name], marks, depth):
            return False
    for cell in function.__closure__ or ():
        try:
            captured = cell.cell_contents
        except ValueError:  # not bound yet
            return False
        if captured is not function and not _is_settled(captured, marks, depth):
            return False
    return True

"""Whether a function may move to another process: not whether it can be pickled, but what would be lost.

It may if nothing that it leaves behind here could be missed: its code writes no global and no nonlocal variable, and it
carries no lock and nothing that it might change. What it carries is what would be pickled with it: what its closure
captured, what its defaults keep, what `functools.partial` and other wrappers hold, and, of a function that is not
installed, the globals that it names. The functions among these are looked at in their turn.

    a list, dictionary, set, or other object    it stays: it might change it, or others might, while it runs
    the same as a global IN_CAPITALS, or of a   it moves, unless its code is seen to write into that very name
    module that is imported there anew
    an array or a table, or a default           it moves, unless its code writes into something: captured arrays are
                                                mostly data, and who fills one writes `a[i] = ...` or `out=a`
    what hashes by its value                    it moves: such things do not change
    a call of `hash`                            it stays: of strings it differs between processes
    a function that is installed                it moves: what a library keeps is its own affair

What a client has changed in a module that it imported does not travel. Captured things change, so they are looked at
anew with each question (10 us); what code says is kept, weakly (100 us at first sight).
"""

import io
import os
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from itertools import islice
from types import BuiltinMethodType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any, Final

from wukong.bytecode import Reading, read
from wukong.origin import find, installed

_CONTAINERS: Final = (list, dict, set, bytearray)
#: Of libraries whose objects are data; of these, those that hash by their value never change anyway.
_DATA: Final = frozenset({"numpy", "pandas", "pyarrow", "scipy", "polars", "xarray"})
_MOST: Final = 1000


def keeps(function: Callable[..., Any]) -> str | None:
    """Return what keeps a function in this process, in words that follow its name; None if it may move.

    Parameters
    ----------
    function : callable
        A function, method, class, `functools.partial`, or any callable object.

    Examples
    --------
    >>> results = []
    >>> keeps(lambda x: results.append(x))
    'uses the global list `results`, which it might change'
    """
    search = _Search()
    search.add(function, "is", "")
    return search.run()


class _Search:
    """One question: what is still to be looked at, and what was found that counts only if the code writes."""

    def __init__(self) -> None:
        self._queue: list[tuple[Any, str, str, bool, str]] = []
        self._seen: set[tuple[int, bool]] = set()
        self._in = ""
        self._soft: list[str] = []
        self._writes = False

    def add(self, thing: Any, verb: str, name: str, library: bool = False) -> None:
        """Put down what is to be looked at, and how a sentence on it begins; of a library, data is passed over."""
        # The queue keeps it, so that no other takes its number.
        if (id(thing), library) not in self._seen:
            self._seen.add((id(thing), library))
            self._queue.append((thing, verb, name, library, self._in))

    def run(self) -> str | None:
        """Look at everything; return the first reason found."""
        # The queue grows while it is read.
        for thing, verb, name, library, within in self._queue:
            self._in = within
            reason = self._look(thing, verb, name, library)
            if reason is not None:
                return f"runs `{self._in}`, which {reason}" if self._in else reason
            if len(self._queue) > _MOST:
                return f"refers to more than {_MOST} things, so nobody knows what it might change"
        return self._soft[0] if self._soft and self._writes else None

    def _look(self, thing: Any, verb: str, name: str, library: bool) -> str | None:
        kind = type(thing)
        if kind in _ATOMS:
            return None
        if isinstance(thing, FunctionType):
            return self._look_at_function(thing)
        if isinstance(thing, type):
            return self._look_at_class(thing)
        if isinstance(thing, partial):
            theirs = library or installed(_innermost(thing))
            self.add(thing.func, verb, name, library)
            for i, value in enumerate(thing.args):
                self.add(value, "is given the", f"argument {i}", theirs)
            for keyword, value in thing.keywords.items():
                self.add(value, "is given the", keyword, theirs)
            return None
        if isinstance(thing, MethodType | BuiltinMethodType | MethodWrapperType):
            return self._look_at_method(thing, library)
        if isinstance(thing, tuple | frozenset) or (library and isinstance(thing, _CONTAINERS)):
            for item in islice(thing.values() if isinstance(thing, dict) else thing, _MOST):
                if type(item) not in _ATOMS:
                    self.add(item, verb, name, library)
            return None
        return self._look_at_object(thing, verb, name, library)

    def _look_at_function(self, function: FunctionType) -> str | None:
        theirs, found = installed(function), find(function)
        if theirs and found is function:
            return None
        if self._queue[0][0] is not function:
            self._in = function.__qualname__.rpartition(".")[2]
        if not theirs:
            code = read(function.__code__)
            hashes = "hash" in code.names and "hash" not in function.__globals__ and function.__name__ != "__hash__"
            if hashes and _hashes_differ():
                return "calls `hash`, which gives other numbers in other processes unless PYTHONHASHSEED is set"
            anew = found is function and function.__module__ != "__main__"
            reason = code.reason or self._add_globals(function.__globals__, code, anew)
            if reason is not None:
                return reason
            self._writes = self._writes or code.writes
            written = code.written
            self._writes = self._writes or not written.isdisjoint(function.__code__.co_freevars)
        else:
            written = frozenset()
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                self.add(cell.cell_contents, "captures the", name, theirs)
            except ValueError:  # not bound yet
                continue
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        defaults = function.__defaults__ or ()
        kept = {
            **dict(zip(names[len(names) - len(defaults) :], defaults, strict=True)),
            **(function.__kwdefaults__ or {}),
        }
        for name, value in kept.items():
            if isinstance(value, _CONTAINERS) and not theirs:
                sentence = f"keeps the {type(value).__name__} `{name}` as a default, which it might change"
                if name in written:
                    return sentence
                self._soft.append(self._said(sentence))
            self.add(value, "keeps as a default the", name, theirs or isinstance(value, _CONTAINERS))
        return None

    def _add_globals(self, space: dict[str, Any], code: Reading, anew: bool) -> str | None:
        for name in code.names:
            if name not in space:
                continue
            value = space[name]
            if name in code.assigned and isinstance(value, ModuleType | type | FunctionType):
                return f"writes into the global `{name}`"
            if isinstance(value, ModuleType):
                # A function that is called through its module is one of those that run.
                if not installed(value):
                    for attribute in code.attributes & value.__dict__.keys():
                        if isinstance(value.__dict__[attribute], FunctionType | type):
                            self.add(value.__dict__[attribute], "uses the global", f"{name}.{attribute}")
                continue
            self._writes = self._writes or name in code.written
            constant = (anew or name.isupper()) and name not in code.written and isinstance(value, _CONTAINERS)
            self.add(value, "uses the global", name, constant)
        return None

    def _look_at_class(self, cls: type) -> str | None:
        if installed(cls):
            return None
        for name, value in list(cls.__dict__.items()):
            inner = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
            # What `dataclass` writes here keeps a set of its own.
            if isinstance(inner, FunctionType) and name != "__repr__":
                self.add(inner, "runs", name)
            elif isinstance(inner, _CONTAINERS) and not name.startswith("_"):
                self.add(inner, f"uses the class `{cls.__name__}` with the", name)
        return None

    def _look_at_method(self, method: Any, library: bool) -> str | None:
        owner = method.__self__
        if isinstance(method, MethodType):
            self.add(method.__func__, "is a method of the", "", library)
        if owner is None or isinstance(owner, ModuleType | type) or type(owner) in _ATOMS or library:
            return None
        if _by_value(owner) or _stateless(owner):
            self.add(owner, "is a method of the", type(owner).__name__)
            return None
        whose = "" if installed(type(owner)) else " of yours"
        return f"is a method of a mutable object{whose} (`{type(owner).__name__}`)"

    def _look_at_object(self, thing: Any, verb: str, name: str, library: bool) -> str | None:
        kind = type(thing)
        called = f" `{name}`" if name else ""
        if _guards(kind):
            return f"{verb} lock{called}"
        if isinstance(thing, io.IOBase):
            return f"{verb} open file{called}"
        if hasattr(kind, "__next__"):
            return f"{verb} iterator{called}, which it would use up"
        if isinstance(thing, ModuleType) or kind.__module__ == "logging":
            return None
        ours = not installed(kind)
        state = dict(_attributes(thing))
        if callable(thing) and not ours:
            for value in state.values():
                self.add(value, verb, name, library=True)
            return None
        if library or _by_value(thing) or _stateless(thing):
            if ours:
                self.add(kind, "uses", kind.__name__)
                for value in state.values():
                    self.add(value, verb, name, library)
            return None
        if not name and ours:
            return f"is a mutable object of yours (`{kind.__name__}`)"
        sentence = f"{verb} {kind.__name__}{called}, which it might change"
        if kind.__module__.partition(".")[0] not in _DATA or _draws(kind):
            return sentence
        if getattr(getattr(thing, "flags", None), "writeable", True):
            self._soft.append(self._said(sentence))
        return None

    def _said(self, sentence: str) -> str:
        return f"runs `{self._in}`, which {sentence}" if self._in else sentence


_ATOMS: Final = frozenset(
    {type(None), bool, int, float, complex, str, bytes, range, slice, type(...), type(NotImplemented)}
)


def _hashes_differ() -> bool:
    """Whether strings hash by a secret of this process, which those it starts do not share."""
    return bool(sys.flags.hash_randomization) and not os.environ.get("PYTHONHASHSEED", "").isdecimal()


def _innermost(function: Any) -> Any:
    while isinstance(function, partial):
        function = function.func
    return function


def _guards(kind: type) -> bool:
    return kind.__module__ == "threading" or (hasattr(kind, "acquire") and hasattr(kind, "release"))


def _draws(kind: type) -> bool:
    """Whether these are generators of random numbers: to draw one changes them."""
    return kind.__module__.startswith("numpy.random")


def _by_value(thing: Any) -> bool:
    """Whether a thing hashes by its value, so that it does not change: dates, paths, patterns, frozen dataclasses..."""
    kind = type(thing)
    if isinstance(thing, Enum):
        return True
    neither: tuple[Any, ...] = (None, object.__hash__, object.__eq__)
    return kind.__hash__ not in neither and kind.__eq__ not in neither


def _stateless(thing: Any) -> bool:
    """Whether an object of the user's has nothing that could change."""
    bases = type(thing).__mro__[:-1]
    return not any(installed(base) for base in bases) and next(_attributes(thing), None) is None


def _attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    yield from getattr(thing, "__dict__", {}).items()
    for cls in type(thing).__mro__:
        names = cls.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if not name.startswith("__") and hasattr(thing, name):
                yield name, getattr(thing, name)

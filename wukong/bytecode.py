"""What a function's code says that it writes and reads. Not what that means for where it may run (`wukong.purity`)."""

import dis
from dataclasses import dataclass
from types import CodeType
from typing import Final
from weakref import WeakKeyDictionary

#: Methods that write into a container or an array.
WRITING_METHODS: Final = frozenset(
    (
        *("__setitem__", "__delitem__", "add", "append", "appendleft", "byteswap", "clear", "difference_update"),
        *("discard", "extend", "extendleft", "fill", "insert", "intersection_update", "itemset", "move_to_end"),
        *("partition", "pop", "popitem", "popleft", "put", "remove", "resize", "reverse", "rotate", "setdefault"),
        *("setfield", "setflags", "sort", "subtract", "symmetric_difference_update", "update"),
    )
)
#: Names that have no other meaning: wherever they stand in the code, something is written into.
_WRITERS: Final = frozenset(
    (
        *("__setitem__", "__delitem__", "byteswap", "copyto", "delitem", "fill", "fill_diagonal", "heapify", "heappop"),
        *("heappush", "heappushpop", "heapreplace", "insort", "insort_left", "insort_right", "itemset", "put"),
        *("put_along_axis", "putmask", "resize", "setfield", "setflags", "setitem", "shuffle"),
    )
)
_GLOBALS: Final = ("LOAD_GLOBAL", "LOAD_NAME")
_OUTSIDE: Final = frozenset((*_GLOBALS, "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"))
_ATTRIBUTES: Final = ("LOAD_ATTR", "LOAD_METHOD")
_SUBSCRIPTS: Final = frozenset(("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE"))
#: What follows the loading of a name whose attribute, or item, is then written; a copy is for `name.a += 1`.
_NEXT: Final = frozenset(("STORE_ATTR", "DELETE_ATTR", "COPY"))
_AFTER_NEXT: Final = _SUBSCRIPTS | {"COPY"}


@dataclass(frozen=True, slots=True)
class Reading:
    """What code says, and all code inside it.

    Attributes
    ----------
    reason : str or None
        How it writes variables of its surroundings, as in ``writes the global `counter```.
    names : tuple of str
        Global names it reads.
    attributes : frozenset of str
        Attributes it reads, of anything.
    assigned : frozenset of str
        Names to whose attributes or items it assigns.
    written : frozenset of str
        The same, and those whose value has a method called that may write into it.
    writes : bool
        Whether it may write into anything at all that it did not make.
    """

    reason: str | None
    names: tuple[str, ...]
    attributes: frozenset[str]
    assigned: frozenset[str]
    written: frozenset[str]
    writes: bool


# Equal code says the same, so it does not matter whose it is.
_known: "WeakKeyDictionary[CodeType, Reading]" = WeakKeyDictionary()


def read(code: CodeType) -> Reading:
    """Return what code says; about 2 us an instruction, once."""
    known = _known.get(code)
    if known is None:
        known = _known[code] = _read(code)
    return known


def _read(code: CodeType) -> Reading:
    reason: str | None = None
    names: dict[str, None] = {}
    attributes: set[str] = set()
    assigned: set[str] = set()
    changed: set[str] = set()
    stores = aliases = augments = False
    # Variables of the outermost function's own are its own affair, whichever function inside it writes them.
    parts = [(code, frozenset(code.co_freevars))]
    for part, captured in parts:
        steps = list(dis.get_instructions(part))
        ops = [*(step.opname for step in steps), "", ""]
        for i, (op, name) in enumerate((step.opname, step.argval) for step in steps):
            if op in ("STORE_GLOBAL", "DELETE_GLOBAL"):
                reason = reason or f"writes the global `{name}`"
            elif op in ("STORE_DEREF", "DELETE_DEREF") and name in captured:
                reason = reason or f"writes the nonlocal `{name}`"
            elif op in _OUTSIDE or op == "LOAD_FAST":
                method = steps[i + 1].argval if ops[i + 1] in _ATTRIBUTES else None
                if ops[i + 1] in _NEXT or ops[i + 2] in _AFTER_NEXT:
                    assigned.add(name)
                elif method in WRITING_METHODS:
                    changed.add(name)
                if op in _GLOBALS:
                    names[name] = None
                aliases = aliases or (op in _OUTSIDE and ops[i + 1] == "STORE_FAST")
            elif op in _ATTRIBUTES:
                attributes.add(name)
            elif op in _SUBSCRIPTS:
                stores = True
            elif op == "BINARY_OP":
                augments = augments or steps[i].argrepr.endswith("=")
        for constant in part.co_consts:
            if isinstance(constant, CodeType):
                parts.append((constant, captured & frozenset(constant.co_freevars)))
            elif isinstance(constant, tuple):
                # Names of keyword arguments.
                stores = stores or "out" in constant or "inplace" in constant
    for name in ("globals", "exec"):
        if name in names:
            reason = reason or f"might write globals by `{name}`"
    writes = stores or (aliases and augments) or not _WRITERS.isdisjoint(attributes | names.keys())
    return Reading(
        reason, tuple(names), frozenset(attributes), frozenset(assigned), frozenset(assigned | changed), writes
    )

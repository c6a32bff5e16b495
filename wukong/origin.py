"""Whose code a function or class is: the user's, or that of Python and installed packages."""

import sys
from types import FunctionType, ModuleType
from typing import Any

_roots: dict[str, bool] = {}


def installed(thing: Any) -> bool:
    """Whether a function, class or module belongs to Python or to an installed package, and not to the user."""
    name = thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", None)
    if type(name) is not str:
        name = "" if isinstance(thing, FunctionType) else type(thing).__module__
    root = name.partition(".")[0]
    known = _roots.get(root)
    if known is None:
        known = _installed_root(root)
        # A module of the user's may come and go under its name; those installed stay.
        if known:
            _roots[root] = True
    return known


def _installed_root(root: str) -> bool:
    # Whatever package is run as a program, as by `python -m pytest`: what is defined there is the user's.
    if root in ("__main__", "__mp_main__"):
        return False
    if (
        root in sys.stdlib_module_names
        or root in ("builtins", "wukong", "dask", "distributed")
        or root.startswith("_cython")
    ):
        return True
    module = sys.modules.get(root)
    if module is None:
        return False
    places = [getattr(module, "__file__", None) or "", *map(str, getattr(module, "__path__", ()))]
    return any("site-packages" in place or "dist-packages" in place for place in places)


def find(function: FunctionType) -> Any:
    """Return what pickle would find under the name of a function."""
    found: Any = sys.modules.get(function.__module__ or "")
    for step in function.__qualname__.split("."):
        found = getattr(found, step, None)
    return found

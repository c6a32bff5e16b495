"""Modules that the client has loaded again: a worker that has them loads them again, too. Not those that are installed.

Who edits a module and reloads it, as notebooks do, would otherwise get results of the old code, without a word.
"""

import importlib
import sys
from collections.abc import Mapping
from typing import Any

from wukong.origin import installed


class Reloads:
    """How often each of the user's modules has been loaded again in this process, since it was first seen."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._newest = 0, ""
        self._specs: dict[str, Any] = {}
        self._counts: dict[str, int] = {}

    def look(self) -> dict[str, int]:
        """Return the counts, without those that are 0; another dictionary whenever one has changed."""
        # New ones come last.
        if (len(sys.modules), next(reversed(sys.modules))) != self._newest:
            self._find_new()
        for name, spec in list(self._specs.items()):
            # Loading it again gives it another.
            found = getattr(sys.modules.get(name), "__spec__", None)
            if found is not spec and found is not None:
                self._specs[name] = found
                self._counts = {**self._counts, name: self._counts.get(name, 0) + 1}
        return self._counts

    def _find_new(self) -> None:
        modules = dict(sys.modules)
        self._newest = len(modules), next(reversed(modules))
        for name in modules.keys() - self._seen:
            self._seen.add(name)
            spec = getattr(modules[name], "__spec__", None)
            if spec is not None and name != "__main__" and not installed(modules[name]):
                self._specs[name] = spec


class Reloaded:
    """In a worker: what it has loaded again.

    Attributes
    ----------
    times : int
        How often there was something; what was made of a module before may be of its old code.
    """

    def __init__(self) -> None:
        self.times = 0
        self._counts: Mapping[str, int] = {}

    def catch_up(self, counts: Mapping[str, int]) -> None:
        """Load again what the client has, in the order of names, if it is here at all."""
        behind = sorted(name for name, count in counts.items() if count != self._counts.get(name, 0))
        if behind:
            importlib.invalidate_caches()
            self.times += 1
            for name in behind:
                if name in sys.modules:
                    try:
                        importlib.reload(sys.modules[name])
                    except Exception:
                        # Whoever needs it will import it, and be told what is wrong with it.
                        del sys.modules[name]
            self._counts = counts

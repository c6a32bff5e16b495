"""Values that are left where they were made, sealed in memory that processes share, until somebody here looks.

A graph may be given such values, and may be asked to leave what it gives. Processes read them where they lie; a task
in this process, what puts whole results together, and whoever asks for the value open them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from wukong.storage.arena import Sealed


class Left:
    """A value that lies elsewhere.

    Parameters
    ----------
    sealed : Sealed
        Where.
    unseal : callable
        Returns the object.

    Attributes
    ----------
    sealed : Sealed
    nbytes : int
        Packed.
    """

    __slots__ = ("_unseal", "nbytes", "sealed")

    def __init__(self, sealed: Sealed, unseal: Callable[[], Any]) -> None:
        self.sealed = sealed
        self.nbytes = len(sealed)
        self._unseal = unseal

    def open(self) -> Any:
        """Return the object."""
        return self._unseal()


class Values(dict[Any, Any]):
    """Values by key, some of them left: they are opened when they are read.

    Parameters
    ----------
    values : mapping of key to value or Left
    leave : bool
        Whether what processes give is to be left, too.

    Attributes
    ----------
    left : dict of key to Left
        Those that are not in the dictionary itself. While a walk is taken over, others read what is in there, so what
        is opened must not be added.
    leave : bool
    """

    __slots__ = ("leave", "left")

    def __init__(self, values: Mapping[Any, Any], leave: bool = False) -> None:
        super().__init__((key, value) for key, value in values.items() if type(value) is not Left)
        self.left = {key: value for key, value in values.items() if type(value) is Left}
        self.leave = leave

    def __missing__(self, key: Any) -> Any:
        return self.left[key].open()

    def get(self, key: Any, default: Any = None) -> Any:
        """Return a value, or `default`."""
        return self.left[key].open() if key in self.left else super().get(key, default)

    def __delitem__(self, key: Any) -> None:
        if self.left.pop(key, None) is None:
            super().__delitem__(key)

    def known(self) -> dict[Any, Any]:
        """Return all of them, those that are left as they are."""
        return {**self, **self.left}

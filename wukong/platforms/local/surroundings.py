"""What code finds around it: as it is in the client, so it is made in a worker. Not the code itself.

`sys.path`, the working directory, environment variables, Dask's configuration, filters of warnings, levels of loggers,
what NumPy does about floating point errors, modules that were loaded again (`reloads`). Together they have a digest: a
worker is sent them when it does not have them, and applies them when they are not what it applied last. What the client
has removed since is removed.

Dask's `scheduler` stays behind: a compute inside a task asks for ``wukong``, which runs in the worker.
"""

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Final

from wukong import serialize
from wukong.platforms.local.known import Parcel
from wukong.platforms.local.processors import threads_each
from wukong.platforms.local.reloads import Reloaded, Reloads

Seen = tuple[Any, ...]

# What floating point errors lead to where nobody has said anything: not worth importing NumPy for.
_FLOATING: Final = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


class Capture:
    """The surroundings of this process, to be asked often: nothing is copied while nothing changes.

    Parameters
    ----------
    share : int
        Threads that libraries in a worker may start.
    """

    def __init__(self, share: int) -> None:
        self._share = share
        self._reloads = Reloads()
        self._latest: tuple[Seen, dict[str, int], Parcel] | None = None

    def __call__(self) -> Parcel:
        """Return them as they are now."""
        latest, reloads = self._latest, self._reloads.look()
        if latest is None or latest[1] is not reloads or not _same(latest[0]):
            seen = _look()
            latest = self._latest = seen, reloads, self._pack(seen, reloads)
        return latest[2]

    def _pack(self, seen: Seen, reloads: dict[str, int]) -> Parcel:
        path, cwd, _, config, filters, levels, floating = seen
        environ = dict(os.environ)
        environ.update(threads_each(self._share, environ))
        config = _travels({name: value for name, value in config.items() if name != "scheduler"})
        filters = _those_that_travel(filters)
        frame = bytes(serialize.dumps((path, cwd, environ, config, filters, levels, floating, reloads)))
        return Parcel(blake2b(frame, digest_size=16).digest(), frame)


def _same(seen: Seen) -> bool:
    """Whether `_look` would find what it found then. Nothing is copied: this is asked for every call."""
    path, cwd, environ, config, filters, levels, floating = seen
    try:
        return bool(
            sys.path == path
            and getattr(os.environ, "_data", os.environ) == environ
            and warnings.filters == filters
            and os.getcwd() == cwd
            and _dask_config() == config
            and _floating() == floating
            and _levels() == levels
        )
    except Exception:  # of something in Dask's configuration that cannot be compared, or a directory that is gone
        return False


def _copied(config: Any) -> Any:
    """Copy what may be changed in place; not what is in there for its own sake, such as a pool."""
    if isinstance(config, dict):
        return {name: _copied(value) for name, value in config.items()}
    return list(config) if type(config) is list else config


def _look() -> Seen:
    try:
        cwd = os.getcwd()
    except OSError:  # it was removed
        cwd = None
    return (
        list(sys.path),
        cwd,
        # The mapping behind it holds the very bytes; comparing what `os.environ` makes of them takes 20 times longer.
        dict(getattr(os.environ, "_data", os.environ)),
        _copied(_dask_config()),
        list(warnings.filters),
        _levels(),
        _floating(),
    )


def _dask_config() -> dict[str, Any]:
    # It may be there, and not yet have everything: another thread may be importing it.
    config: dict[str, Any] = getattr(sys.modules.get("dask.config"), "config", {})
    return config


def _floating() -> dict[str, str]:
    look: Callable[[], dict[str, str]] | None = getattr(sys.modules.get("numpy"), "geterr", None)
    return look() if look is not None else _FLOATING


def _levels() -> dict[str | None, int]:
    """Return the levels of loggers by name, and under None the level up to which all are silent."""
    manager = logging.root.manager
    levels: dict[str | None, int] = {None: manager.disable, "": logging.root.level}
    for name, logger in list(manager.loggerDict.items()):
        level = getattr(logger, "level", 0)  # some are only names that loggers have below them
        if level:
            levels[name] = level
    return levels


def _travels(config: dict[str, Any]) -> dict[str, Any]:
    """Leave out what cannot be sent, such as pools and callables of this process."""
    kept = {}
    for name, value in config.items():
        try:
            serialize.dumps(value)
        except Exception:
            if isinstance(value, dict):
                kept[name] = _travels(value)
        else:
            kept[name] = value
    return kept


def _those_that_travel(filters: list[Any]) -> list[Any]:
    return [one for one in filters if _travels({"": one})]


class Applied:
    """In a worker: the surroundings it has applied last.

    Attributes
    ----------
    reloaded : Reloaded
        What it has loaded again because the client had.
    """

    def __init__(self) -> None:
        self.reloaded = Reloaded()
        self._digest = b""
        self._environ = dict(os.environ)
        self._levels: dict[str | None, int] = {}
        self._config: dict[str, Any] | None = None

    def apply(self, digest: bytes, frame: bytes) -> None:
        """Make this process's surroundings what they were in the client."""
        if digest == self._digest:
            return
        path, cwd, environ, config, filters, levels, floating, reloads = serialize.loads(frame)
        if path != sys.path:
            sys.path[:] = path
            importlib.invalidate_caches()
        if cwd is not None:
            os.chdir(cwd)
        self._apply_environ(environ)
        self._config = config
        if "dask.config" in sys.modules:
            self.apply_dask_config()
        # This tells the C code that filters have changed; nothing may warn before they are there again.
        warnings.resetwarnings()
        warnings.filters.extend(filters)  # type: ignore[attr-defined]
        self._apply_levels(levels)
        if floating != _FLOATING or "numpy" in sys.modules:
            importlib.import_module("numpy").seterr(**floating)
        self.reloaded.catch_up(reloads)
        self._digest = digest

    def apply_dask_config(self) -> None:
        """Make Dask's configuration what it was in the client, now that Dask is imported."""
        if self._config is not None:
            module = sys.modules["dask.config"]
            with module.config_lock:
                module.config.clear()
                module.config.update(_copied(self._config), scheduler="wukong")

    def _apply_environ(self, environ: Mapping[str, str]) -> None:
        for name in self._environ.keys() - environ.keys():
            os.environ.pop(name, None)
        for name, value in environ.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        self._environ = dict(environ)

    def _apply_levels(self, levels: dict[str | None, int]) -> None:
        logging.disable(levels[None])
        for name in (self._levels.keys() | levels.keys()) - {None}:
            logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))
        self._levels = levels


#: Of this process, if it is a worker.
applied = Applied()

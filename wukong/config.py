"""Options of a compute: their names, allowed values, and where they are looked up. Not how they are carried out.

An option is taken from the call (`wukong.compute(x, granules="threads")`), then from `wukong.config.set(...)`, then
from the environment (`WUKONG_GRANULES=threads`), then from `Options`. All are checked before anything runs.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from wukong.errors import ConfigError

PLATFORMS: Final = ("local",)
GRANULES: Final = ("auto", "inline", "threads", "processes")
STORE_SCHEMES: Final = ("redis://", "rediss://", "unix://", "redis+cluster://", "rediss+cluster://")


@dataclass(frozen=True, slots=True)
class Options:
    """What one compute runs with.

    Attributes
    ----------
    platform : str
        Where executors start: one of `PLATFORMS`.
    granules : str
        What runs them: one of `GRANULES`; ``auto`` begins in the client and opens up when tasks prove long enough.
    workers : int or None
        How many run at once; None for Dask's ``num_workers``, or else as many as there are processors.
    store : str or None
        None keeps everything in the process; ``embedded`` starts a private server; else a URL of `STORE_SCHEMES`.
    progress : bool
        Whether a bar on the terminal, or in the notebook, shows how far a compute of more than a second is.
    budget : float or None
        Seconds of executor time, all workers together, after which nothing more of a compute begins; None for no end.
    attempts : int
        How many worker processes may die at one task, or at one call, before it is given up.
    stragglers : bool
        Whether a task that is far behind others of its kind is started a second time, in a process that is idle.
    """

    platform: str = "local"
    granules: str = "auto"
    workers: int | None = None
    store: str | None = None
    progress: bool = False
    budget: float | None = None
    attempts: int = 3
    stragglers: bool = True


NAMES: Final = tuple(field.name for field in fields(Options))
_WHOLE: Final = ("workers", "attempts")
_TRUE_OR_NOT: Final = ("progress", "stragglers")

_settings: dict[str, Any] = {}


class set:  # noqa: N801 - used as a function, and as a context manager like dask.config.set
    """Set options for the process, or, in a ``with`` statement, until its end.

    Parameters
    ----------
    **options
        Fields of `Options`.

    Raises
    ------
    ConfigError
        If an option is unknown or its value is not allowed.

    Examples
    --------
    >>> with set(granules="threads"):
    ...     resolve({}).granules
    'threads'
    """

    def __init__(self, **options: Any) -> None:
        for name, value in options.items():
            _check(name, value, "wukong.config.set")
        self._before = dict(_settings)
        _settings.update(options)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        _settings.clear()
        _settings.update(self._before)


def refuse_misspelled(given: Iterable[str]) -> None:
    """Refuse names that are nearly those of options: Dask would pass them over without a word.

    Raises
    ------
    ConfigError
        If there is one; says what was probably meant.
    """
    from difflib import get_close_matches

    for name in given:
        if name not in NAMES and name != "num_workers":
            meant = get_close_matches(name, NAMES, 1, 0.75)
            if meant:
                raise ConfigError(f"{name!r} is no option; did you mean {meant[0]!r}? Options are: {', '.join(NAMES)}")


def resolve(given: Mapping[str, Any]) -> Options:
    """Return the options of one compute: those given, then `set`, the environment and the defaults.

    Raises
    ------
    ConfigError
        If any of them is not allowed; the message says where it was set and lists what is.
    """
    for name, value in given.items():
        _check(name, value, "the call")
    return Options(**{**_from_environment(), **_settings, **given})


def _from_environment() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in NAMES:
        variable = "WUKONG_" + name.upper()
        text = os.environ.get(variable)
        if text:
            value: Any = text
            if name in _WHOLE and text.isdecimal():
                value = int(text)
            if name == "budget":
                value = _number(text)
            if name in _TRUE_OR_NOT:
                value = {"1": True, "true": True, "0": False, "false": False}.get(text.lower(), text)
            _check(name, value, f"the environment variable {variable}")
            found[name] = value
    return found


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _check(name: str, value: Any, where: str) -> None:
    if name == "platform":
        good, allowed = value in PLATFORMS, ", ".join(PLATFORMS)
    elif name == "granules":
        good, allowed = value in GRANULES, ", ".join(GRANULES)
    elif name == "workers":
        good = value is None or (type(value) is int and value > 0)
        allowed = "None or a positive integer"
    elif name == "store":
        good = value is None or value == "embedded" or (isinstance(value, str) and value.startswith(STORE_SCHEMES))
        allowed = "None, embedded, or a URL that starts with " + " ".join(STORE_SCHEMES)
    elif name == "budget":
        good = value is None or (type(value) in (int, float) and 0 < value < float("inf"))
        allowed = "None or a positive number of seconds"
    elif name == "attempts":
        good, allowed = type(value) is int and value > 0, "a positive integer"
    elif name in _TRUE_OR_NOT:
        good, allowed = type(value) is bool, "True or False (in the environment 1 or 0)"
    else:
        raise ConfigError(f"{where} sets {name!r}, which is no option; options are {', '.join(NAMES)}")
    if not good:
        # A URL may carry a password, so only its scheme is shown.
        shown = value.partition("://")[0] + "://..." if isinstance(value, str) and "://" in value else repr(value)
        raise ConfigError(f"{where} sets {name}={shown}, which is not allowed; use {allowed}")

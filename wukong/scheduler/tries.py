"""How often a function may run: again after it raised (`retry`), or never twice (`once`). Imported by workers: no Dask.

The pause before another try doubles each time, and is cut by chance to between a half and all of it, so that what
failed together does not come again together.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from numbers import Integral, Real
from random import SystemRandom
from time import monotonic, sleep
from typing import Any, Final, NamedTuple, TypeVar

from wukong.errors import ConfigError
from wukong.scheduler.course import present

F = TypeVar("F", bound=Callable[..., Any])

#: Seconds: the longest pause, and how long nobody looks whether the compute is over.
_LONGEST: Final = 60.0
_LOOK: Final = 0.05
#: The seeds of tasks are none of our business, and workers are forked with equal ones.
_chance = SystemRandom()


class Retry(NamedTuple):
    """How what raises is tried again. Called with a function, it returns one that is.

    Attributes
    ----------
    times : int
        How many more times, at most.
    backoff : float
        Seconds before the second try; they double with each.
    on : tuple of types
        Errors after which it is tried again.
    """

    times: int
    backoff: float
    on: tuple[type[BaseException], ...]

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if is_once(function):
            raise ConfigError(f"{function!r} is marked to run once, so it cannot be retried; take one of the two away")

        @wraps(function)
        def retried(*args: Any, **kwargs: Any) -> Any:
            return again(self, function, *args, **kwargs)

        retried.wukong_retry = self  # type: ignore[attr-defined]
        return retried

    def may(self, error: BaseException, tried: int) -> bool:
        """Whether what failed so many times before, and now with this error, may be tried again."""
        return tried < self.times and isinstance(error, self.on)

    def pause(self, tried: int) -> float:
        """Return the seconds until the next try of what failed so many times."""
        return min(self.backoff * 2.0 ** (tried - 1), _LONGEST) * _chance.uniform(0.5, 1.0)


def retry(
    times: int, backoff: float = 0.1, on: type[BaseException] | tuple[type[BaseException], ...] = Exception
) -> Retry:
    """Have a function tried again when it raises: a decorator, or what ``retries=`` takes in place of a number.

    A call given it as ``retries=`` waits for its next try without a worker; a decorated function, and a task of a
    graph, waits in its own.

    Parameters
    ----------
    times : int
        How many more times, at most.
    backoff : float
        Seconds before the second try; they double with each, up to a minute, and are cut by chance, by up to a half.
    on : type or tuple of types
        Errors after which it is tried again.

    Raises
    ------
    ConfigError
        If any of these is not allowed.

    Examples
    --------
    >>> @retry(3, on=OSError)
    ... def read(name):
    ...     return open(name).read()
    """
    kinds = on if isinstance(on, tuple) else (on,)
    if not isinstance(times, Integral) or times < 0:
        raise ConfigError(f"retry(times={times!r}) is not allowed; use a whole number that is not negative")
    if not isinstance(backoff, Real) or not 0 <= backoff < float("inf"):
        raise ConfigError(f"retry(backoff={backoff!r}) is not allowed; use seconds")
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        raise ConfigError(f"retry(on={on!r}) is not allowed; use a type of error, or a tuple of them")
    return Retry(int(times), float(backoff), kinds)


def retry_of(retries: Any) -> Retry | None:
    """Return what ``retries=`` says, a number or a `Retry`; None if it says no.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    if type(retries) is Retry:
        return retries if retries.times else None
    if not isinstance(retries, Integral):
        raise ConfigError(f"retries={retries!r} is not allowed; use a whole number, or wukong.retry(...)")
    return retry(times) if (times := int(retries)) else None


def again(retry: Retry, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a function; if it raises, call it again, as `retry` says. The last error has notes of those before."""
    earlier: list[str] = []
    while True:
        try:
            return function(*args, **kwargs)
        except retry.on as error:
            if not retry.may(error, len(earlier)):
                tell_earlier(error, earlier)
                raise
            failed = error
        if not _wait(retry.pause(len(earlier) + 1)):
            tell_earlier(failed, earlier)
            raise failed
        earlier.append(said(failed))
        # Nothing of an earlier try lives on in the next one.
        del failed


def said(error: BaseException) -> str:
    """Return the type and the text of an error; a broken one has no text."""
    text = ""
    with suppress(Exception):
        text = f": {error}"
    return f"{type(error).__qualname__}{text}"


def tell_earlier(error: BaseException, earlier: list[str]) -> None:
    """Note on the last error what was raised before."""
    # Some errors can take no note: those of a frozen dataclass, for one.
    with suppress(Exception):
        for number, what in enumerate(earlier, 1):
            error.add_note(f"wukong: try {number} of {len(earlier) + 1} raised {what}")


def once(function: F) -> F:
    """Mark a function that is never to run twice knowingly on the same task: a decorator.

    No retries, no second copy, no computing again what was lost: if its worker dies, that is a `TaskLost`.

    Raises
    ------
    ConfigError
        If it cannot be marked, as builtins cannot.
    """
    if hasattr(function, "wukong_retry"):
        raise ConfigError(f"{function!r} is retried, so it cannot be marked to run once; take one of the two away")
    try:
        function.wukong_once = True  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        raise ConfigError(f"{function!r} cannot be marked; wrap it: wukong.once(functools.partial(...))") from None
    return function


def is_once(function: Any) -> bool:
    """Whether a function was marked by `once`, or is one, with some of its arguments, that was."""
    while type(function) is partial:
        if getattr(function, "wukong_once", False):
            return True
        function = function.func
    return getattr(function, "wukong_once", False) is True


def _wait(seconds: float) -> bool:
    """Wait so long, and count the try that follows; return False, and sooner, if the compute is over."""
    course, until = present.get(), monotonic() + seconds
    while (left := until - monotonic()) > 0 and not (course is not None and course.ending):
        sleep(min(left, _LOOK))
    return course is None or course.again()

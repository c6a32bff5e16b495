"""Sizes as people write them."""

import re
from typing import Any, Final

from wukong.errors import ConfigError

_UNITS: Final = (
    {"": 1}
    | {
        f"{prefix}{end}": (1024 if end == "ib" else 1000) ** power
        for power, prefix in enumerate("kmgtp", 1)
        for end in ("", "b", "ib")
    }
    | {"b": 1}
)


def parse_bytes(size: Any, what: str = "memory_limit") -> int | None:
    """Return a number of bytes, from one or from text such as ``4GB``, ``1.5 GiB``, ``500e6``; None of None.

    Raises
    ------
    ConfigError
        If it is neither, or not above 0.

    Examples
    --------
    >>> parse_bytes("1.5 kB"), parse_bytes("1KiB"), parse_bytes(10)
    (1500, 1024, 10)
    """
    if size is None:
        return None
    found = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([a-z]*)\s*", size.lower()) if isinstance(size, str) else None
    try:
        number = float(found[1]) * _UNITS[found[2]] if found else float(size)
    except (KeyError, TypeError, ValueError):
        number = 0
    if isinstance(size, bool) or not 1 <= number < 2**63:
        raise ConfigError(f"{what}={size!r} is not allowed; use a number of bytes, or text such as '4GB' or '500MiB'")
    return int(number)

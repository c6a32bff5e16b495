"""What the tasks of the rows do. No scheduler is known here, and nothing heavy is loaded.

Work in pure Python is a fixed number of turns rather than a time to fill: a task that has to wait for the interpreter
then takes longer, as it should.
"""

import re
import sysconfig
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_MODULUS, _FACTOR = 2**31 - 1, 48271
_WORD = re.compile("[a-z]{2,}")


def spin(turns: int) -> int:
    """Turn a random number generator (Park and Miller's) in pure Python; a thousand turns take about 40 us."""
    state = 1
    for _ in range(turns):
        state = state * _FACTOR % _MODULUS
    return state


def spun(turns: int) -> int:
    """Return what `spin` returns, at once."""
    return pow(_FACTOR, turns, _MODULUS)


def nothing(value: int) -> int:
    """Return the argument: a call that costs only what calling costs."""
    return value


def add_asleep(seconds: float, left: int, right: int) -> int:
    """Add after sleeping: a task that waits, and needs neither processor nor interpreter."""
    time.sleep(seconds)
    return left + right


def add_spinning(turns: int, left: int, right: int) -> int:
    """Add after so many turns: a task that holds the interpreter."""
    spin(turns)
    return left + right


def digest(block: Any, turns: int) -> int:
    """Sum the last digits of some numbers of a block, one by one in Python, then turn a while."""
    return sum(int(value) % 10 for value in block.ravel()[:10_000].tolist()) + spin(turns)


def texts(most: int) -> list[str]:
    """Return paths of some sources of the standard library: real text, the same for everybody on this Python."""
    library = Path(sysconfig.get_path("stdlib"))
    found = [*library.glob("*.py"), *(path for path in library.glob("*/*.py") if "packages" not in path.parent.name)]
    return [str(path) for path in sorted(found)[:most]]


def words(path: str) -> list[str]:
    """Return the words of a text."""
    return _WORD.findall(Path(path).read_text(errors="replace").lower())


def often(pair: tuple[str, int]) -> tuple[int, str]:
    """Order words by how often they are used, then by themselves."""
    return pair[1], pair[0]


def part(number: int, rows: int) -> Any:
    """Return one part of a table: 24 bytes a row."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(number)
    return pd.DataFrame({name: random.integers(0, top, rows) for name, top in (("key", 5000), ("x", 100), ("y", 100))})


def describe(table: Any) -> Any:
    """Return a table of one row that says how many keys and rows `table` has, and the sum of x."""
    import pandas as pd

    return pd.DataFrame({"keys": [table["key"].nunique()], "rows": [len(table)], "x": [table["x"].sum()]})


def joined(parts: Iterable[Any]) -> Any:
    """Return the parts of a table as one."""
    import pandas as pd

    return pd.concat(parts, ignore_index=True)

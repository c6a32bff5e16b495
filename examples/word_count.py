"""The words of a language in use: every word in the source of Python's standard library, counted.

    python examples/word_count.py [FILES]

A few hundred files, 12 MB, are there wherever Python is (FILES says how many of them to read). Words are split and
counted in partitions, and the counts are merged as a tree. This is Python code that holds the interpreter. The counts
are held against those of a plain loop. Needs ``pip install 'wukong[demo]'``.
"""

import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable
from functools import reduce
from operator import add
from pathlib import Path

import dask.bag as db
from timing import by_wukong_and_dask, timed

from wukong.diagnostics.summary import size

LIBRARY = Path(sysconfig.get_path("stdlib"))
OTHERS = {"site-packages", "dist-packages", "test", "tests", "lib2to3"}


def library() -> list[Path]:
    """Return the files of the standard library, without its tests, in order."""
    return sorted(path for path in LIBRARY.rglob("*.py") if not OTHERS.intersection(path.relative_to(LIBRARY).parts))


def count(paths: Iterable[Path]) -> Counter[str]:
    """Count the words in files: runs of letters, in lower case."""
    counts: Counter[str] = Counter()
    for path in paths:
        counts.update(re.findall(r"[a-z]+", path.read_text(encoding="utf-8", errors="replace").lower()))
    return counts


def merge(counts: Iterable[Counter[str]]) -> Counter[str]:
    """Add counts up."""
    return reduce(add, counts, Counter())


def main(files: int = 10_000) -> None:
    """Count, check, and say what the run was like."""
    paths = library()[:files]
    print(f"Words of {len(paths):,} files of the standard library, {size(sum(p.stat().st_size for p in paths))}")

    bag = db.from_sequence(paths, npartitions=min(32, len(paths)))
    (found,) = by_wukong_and_dask(bag.reduction(count, merge, split_every=4))

    with timed("a plain loop"):
        expected = count(paths)
    assert found == expected, "the counts differ from those of a plain loop"
    print(f"{'checked':<12} the counts are those of a plain loop")
    print(f"{'found':<12} {found.total():,} words, {len(found):,} different ones; the most frequent:")
    print("\n".join(f"{number:>20,} {word}" for word, number in found.most_common(5)))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""What the rows compute, and what must come out: pairs of functions of a size, `name` and `name_truth`.

A truth is worked out without any contestant, where that is possible: in closed form, or by plain NumPy, pandas and
Python. Dask is imported within, since contestants without it make calls, too.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

from benchmarks.peers import tasks

# --- graphs of tiny tasks: what the scheduler costs -------------------------------------------------------------------


def tree(leaves: int) -> tuple[Any]:
    """Sum pairs of integers, pairs of pairs..."""
    from benchmarks.overhead import tree

    return (tree(leaves),)


def tree_truth(leaves: int) -> int:
    """The sum of the first odd numbers."""
    return leaves**2


def fan(width: int) -> tuple[Any]:
    """One source, many readers, one sum."""
    from benchmarks.overhead import fan

    return (fan(width),)


def fan_truth(width: int) -> int:
    """Three for each reader, and its number."""
    return 3 * width + width * (width - 1) // 2


def diamonds(width: int, depth: int) -> tuple[Any]:
    """Rows of tasks, each reading two of the row before."""
    from benchmarks.overhead import diamonds

    return (diamonds(width, depth),)


def diamonds_truth(width: int, depth: int) -> int:
    """The sum of the first row, doubled by every other."""
    return width * (width + 1) // 2 * 2**depth


def chain(length: int) -> tuple[Any]:
    """Each task reads the one before."""
    from benchmarks.overhead import chain

    return (chain(length),)


def chain_truth(length: int) -> int:
    """One for each link, and the one it began with."""
    return length + 1


# --- graphs of NumPy --------------------------------------------------------------------------------------------------


def _normal(rows: int, columns: int, chunk: tuple[int, int], seed: int = 1) -> Any:
    import dask.array as da

    return da.random.default_rng(seed).standard_normal((rows, columns), chunks=chunk)


def _random(side: int, chunk: tuple[int, int]) -> Any:
    import dask.array as da

    return da.random.default_rng(1).random((side, side), chunks=chunk)


def _plain(array: Any) -> Any:
    return array.compute(scheduler="sync")


def gemm(side: int, chunk: int) -> tuple[Any]:
    """Sum of a product of two square matrices."""
    left, right = (_normal(side, side, (chunk, chunk), seed) for seed in (1, 2))
    return ((left @ right).sum(),)


def gemm_truth(side: int, chunk: int) -> Any:
    """Sum of all of a product: the sums of columns times the sums of rows."""
    left, right = (_plain(_normal(side, side, (chunk, chunk), seed)) for seed in (1, 2))
    return left.sum(axis=0) @ right.sum(axis=1)


def tsqr(rows: int, columns: int, chunk: int) -> tuple[Any]:
    """Diagonal of the R of a tall matrix, without its signs, which are a matter of taste."""
    import dask.array as da

    return (abs(da.diag(da.linalg.tsqr(_normal(rows, columns, (chunk, columns)))[1])),)


def tsqr_truth(rows: int, columns: int, chunk: int) -> Any:
    """The same from the Cholesky factor of x.T @ x."""
    import numpy as np

    x = _plain(_normal(rows, columns, (chunk, columns)))
    return np.diag(np.linalg.cholesky(x.T @ x))


def svd(rows: int, columns: int, chunk: int) -> tuple[Any]:
    """Singular values of a tall matrix."""
    import dask.array as da

    return (da.linalg.svd(_normal(rows, columns, (chunk, columns)))[1],)


def svd_truth(rows: int, columns: int, chunk: int) -> Any:
    """The same from the eigenvalues of x.T @ x."""
    import numpy as np

    x = _plain(_normal(rows, columns, (chunk, columns)))
    return np.sqrt(np.linalg.eigvalsh(x.T @ x))[::-1]


def compressed(side: int, chunk: int) -> tuple[Any]:
    """Ten singular values of a square matrix, by random projection and two power iterations."""
    import dask.array as da

    x = _normal(side, side, (chunk, chunk))
    return (da.linalg.svd_compressed(x, min(10, side), n_power_iter=2, seed=3)[1],)


def compressed_truth(side: int, chunk: int) -> Any:
    """The same by Dask's synchronous scheduler: an approximation has no other truth."""
    return _plain(compressed(side, chunk)[0])


def transpose(side: int, chunk: int) -> tuple[Any]:
    """(x + x.T).sum()"""
    x = _random(side, (chunk, chunk))
    return ((x + x.T).sum(),)


def transpose_truth(side: int, chunk: int) -> Any:
    """Twice the sum of x."""
    return 2 * _plain(_random(side, (chunk, chunk))).sum()


def rechunk(side: int, chunk: int) -> tuple[Any]:
    """Blocks of rows to blocks of columns, the largest of each row of these, and their sum."""
    return (_random(side, (chunk, side)).rechunk((side, chunk)).max(axis=1).sum(),)


def rechunk_truth(side: int, chunk: int) -> Any:
    """The same by NumPy."""
    return _plain(_random(side, (chunk, side))).max(axis=1).sum()


# --- graphs of Python -------------------------------------------------------------------------------------------------


def long_tree(task: Callable[..., int], work: float, leaves: int) -> tuple[Any]:
    """A tree whose every task adds two numbers after so much work."""
    from dask import delayed

    add = delayed(task)
    level = [add(work, i, i + 1) for i in range(leaves)]
    while len(level) > 1:
        level = [add(work, left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
    return (level[0],)


def long_tree_truth(task: Callable[..., int], work: float, leaves: int) -> int:  # noqa: ARG001 - of the same size
    """The sum of the leaves."""
    return leaves**2


def spins(turns: int, count: int) -> tuple[Any, list[int]]:
    """Calls that hold the interpreter, each a little longer than the last."""
    return tasks.spin, [turns + i for i in range(count)]


def spins_truth(turns: int, count: int) -> list[int]:
    """What they return."""
    return [tasks.spun(turns + i) for i in range(count)]


def _digits(side: int, chunk: int) -> Any:
    import dask.array as da

    return da.random.default_rng(1).integers(0, 10, (side, side), chunks=chunk).astype(float)


def mixed(side: int, chunk: int, turns: int) -> tuple[Any]:
    """Blocks of a product of matrices, each looked through in pure Python, and the sum of what was found."""
    from dask import delayed

    x = _digits(side, chunk)
    return (delayed(sum)([delayed(tasks.digest)(block, turns) for block in (x @ x).to_delayed().ravel()]),)


def mixed_truth(side: int, chunk: int, turns: int) -> int:
    """The same with NumPy and a loop."""
    x = _plain(_digits(side, chunk))
    product, steps = x @ x, range(0, side, chunk)
    return sum(tasks.digest(product[i : i + chunk, j : j + chunk], turns) for i in steps for j in steps)


def word_count(texts: int, partitions: int) -> tuple[Any]:
    """The 20 words used most in sources of the standard library."""
    import dask.bag as db

    text = db.from_sequence(tasks.texts(texts), npartitions=partitions)
    return (text.map(tasks.words).flatten().frequencies().topk(20, key=tasks.often),)


def word_count_truth(texts: int, partitions: int) -> list[tuple[str, int]]:  # noqa: ARG001 - of the same size
    """The same with one `Counter`."""
    counts = Counter(word for path in tasks.texts(texts) for word in tasks.words(path))
    return sorted(counts.items(), key=tasks.often, reverse=True)[:20]


def _table(parts: int, rows: int) -> Any:
    import dask.dataframe as dd

    return dd.from_map(tasks.part, range(parts), rows=rows, meta=tasks.part(0, 1))


def groupby(parts: int, rows: int) -> tuple[Any]:
    """Sums and means of a table by 5,000 keys."""
    return (_table(parts, rows).groupby("key").agg({"x": "sum", "y": "mean"}),)


def groupby_truth(parts: int, rows: int) -> Any:
    """The same with pandas."""
    table = tasks.joined(tasks.part(number, rows) for number in range(parts))
    return table.groupby("key").agg({"x": "sum", "y": "mean"})


def shuffle(parts: int, rows: int) -> tuple[Any]:
    """A table shuffled by key, then described part by part: keys may be counted so, for no two parts share one."""
    described = _table(parts, rows).shuffle("key").map_partitions(tasks.describe, meta=tasks.describe(tasks.part(0, 1)))
    return (described.sum(),)


def shuffle_truth(parts: int, rows: int) -> Any:
    """The whole table described."""
    return tasks.describe(tasks.joined(tasks.part(number, rows) for number in range(parts))).iloc[0]


# --- calls ------------------------------------------------------------------------------------------------------------


def no_ops(count: int) -> tuple[Any, list[int]]:
    """Calls of nothing."""
    return tasks.nothing, list(range(count))


def no_ops_truth(count: int) -> list[int]:
    """Their arguments."""
    return list(range(count))

"""A table of every function in Python's standard library: made in partitions, written as Parquet, read and grouped.

    python examples/dataframe_parquet.py [FILES]

A partition is made by parsing a few files and taking down each function's module, name, number of lines and arguments,
and whether it is documented; FILES (400) of them in all. The table goes to a directory of Parquet files, is read from
there, and grouped by top-level module. Both the table and the groups are held against pandas.
Needs ``pip install 'wukong[demo]'``.
"""

import ast
import sys
import tempfile
from pathlib import Path

import dask.dataframe as dd
import pandas as pd
from timing import by_wukong_and_dask, timed
from word_count import LIBRARY, library

COLUMNS = {"module": "string", "function": "string", "lines": "int64", "arguments": "int64", "documented": "bool"}


def functions_in(paths: list[Path]) -> pd.DataFrame:
    """Return a row for each function that files define."""
    rows = []
    for path in paths:
        module = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                named = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                lines = node.end_lineno - node.lineno + 1
                rows.append((module, node.name, lines, len(named), ast.get_docstring(node) is not None))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def by_module(table):
    """Return, for each module of a table of pandas or Dask, its functions, their mean length and share documented."""
    return table.groupby("module").agg({"function": "count", "lines": "mean", "documented": "mean"})


def main(files: int = 400) -> None:
    """Make the table, write it, read it, group it, check, and say what the runs were like."""
    paths = library()[:files]
    size = -(-len(paths) // 24)
    parts = [paths[i : i + size] for i in range(0, len(paths), size)]
    meta = pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS)
    with timed("pandas"):
        whole = pd.concat([functions_in(part) for part in parts], ignore_index=True)
        expected = by_module(whole).sort_index()

    with tempfile.TemporaryDirectory(prefix="wukong-example-") as directory:
        print(f"Functions in {len(paths):,} files of the standard library, written as Parquet")
        table = dd.from_map(functions_in, parts, meta=meta)
        by_wukong_and_dask(table.to_parquet(directory, compute=False))
        print("\nRead again, and grouped by module")
        back = dd.read_parquet(directory)
        rows, groups = by_wukong_and_dask(back, by_module(back))

    pd.testing.assert_frame_equal(rows.reset_index(drop=True), whole)
    pd.testing.assert_frame_equal(groups.sort_index(), expected)
    print(f"{'checked':<12} table and groups are those of pandas")
    print(f"{'found':<12} {len(rows):,} functions; the modules that define most of them:\n")
    print(groups.nlargest(5, "function").round({"lines": 1, "documented": 2}).to_string())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""The examples, as one runs them, on less than they are made for. `make examples` runs them in full."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
#: What each is given here, to be quick.
SMALL = {
    "dataframe_parquet": ["40"],
    "gemm": ["512"],
    "photograph": ["pictures", "2"],
    "svc_ensemble": ["6"],
    "svd": ["20"],
    "tree_reduction": ["16"],
    "tsqr": ["4"],
    "word_count": ["40"],
    "xarray_clocks": ["4"],
}
#: The tests share the processors already.
ALONE = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
#: Pictures they draw.
DRAWN = {
    "photograph": ["pictures/ranks.png", "pictures/singular-values.png", "pictures/rank-064.png"],
    "svd": ["out/demo/patterns.png"],
}
#: What the cells of the tour put out.
TOLD = {
    "first": r"np\.float64\(3997083\.15",
    "summary": r"ran on       \d+ threads?, store: memory",
    "alone": r"499500\nran on       the client, alone\ntasks        2,000",
    "photograph": r"wall time",
    "store": r"True\nran on .*store: unix:.*\n(.*\n)*store +[\d,]+ round trips",
    "processes": r"threads .* 350 steps from 77,031\nprocesses .* 350 steps from 77,031\nprocesses",
    "auto": r"^\(350, 77031\)\nran on ",
    "client": r"^285$",
    "completed": r"(0\.\d+\n){4}0\.2$",
    "background": r"^0\.00\d+ True\n$",
    "cache": r"(0\.9996 in .* ms\n){2}[1-9]\d* found\n$",
    "graph": r"\('111', 1\)",
    "error": r"ValueError\(.*'three'.*\)\nwukong: task 'parse three' failed",
    "misspelled": r"granules='proceses', which is not allowed; use auto",
}


@pytest.mark.parametrize("name", SMALL)
def test_an_example_runs_finds_its_result_right_and_shows_what_the_run_was_like(name, tmp_path):
    # Deprecations are for Dask to see to.
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", EXAMPLES / f"{name}.py", *SMALL[name]]
    ended = run(command, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^Wukong +[\d.]+ m?s$", ended.stdout, re.M)
    assert re.search(r"^tasks +[\d,]+$", ended.stdout, re.M)
    assert re.search(r"^checked ", ended.stdout, re.M)
    for picture in DRAWN.get(name, []):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_an_example_whose_result_is_wrong_ends_with_an_error(tmp_path):
    source = (EXAMPLES / "gemm.py").read_text()
    (tmp_path / "gemm.py").write_text(source.replace("expected = a @ b", "expected = a @ b + 1e-9"))
    (tmp_path / "timing.py").symlink_to(EXAMPLES / "timing.py")
    ended = run([sys.executable, "gemm.py", "64"], tmp_path)
    assert ended.returncode == 1
    assert "AssertionError: the product is" in ended.stderr


def test_every_example_is_run_here_and_stands_in_the_index():
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} - {"timing"}
    assert scripts == set(SMALL)
    index = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.glob("*.*"):
        assert path.name == "README.md" or f"]({path.name})" in index, f"{path.name} is not in examples/README.md"


def test_the_tour_runs_and_each_cell_shows_what_the_tour_says(tmp_path):
    """One test, as the notebook is to be run once."""
    path = tmp_path / "tour.ipynb"
    ended = run([sys.executable, ROOT / ".ci" / "notebook.py", EXAMPLES / "tour.ipynb", path], ROOT)
    assert ended.returncode == 0, ended.stderr
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = {cell["id"]: cell["outputs"] for cell in cells}
    for name, told in TOLD.items():
        assert re.search(told, text_of(outputs[name])), f"cell {name} shows {text_of(outputs[name])!r}"
    assert "image/png" in outputs["pictures"][0]["data"]
    assert not [output for each in outputs.values() for output in each if output.get("name") == "stderr"]


def test_the_tour_is_kept_without_what_its_cells_put_out():
    cells = json.loads((EXAMPLES / "tour.ipynb").read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def text_of(outputs):
    """Return what a cell printed, and the text of what it showed."""
    shown = (output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)
    return "".join("".join(lines) for lines in shown)


def run(command, directory):
    return subprocess.run(command, capture_output=True, text=True, cwd=directory, env=ALONE, check=False, timeout=100)

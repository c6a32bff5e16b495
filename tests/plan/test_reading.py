"""What a plan says of itself."""

import subprocess
import sys
from operator import add

import pytest

from wukong.errors import MissingExtra
from wukong.scheduler.dask.lower import lower

GRAPH = {"a": (add, 1, 2), "b": (add, "a", 1), "c": (add, "a", "b")}


def test_the_networkx_graph_has_keys_and_edges_for_people() -> None:
    graph = lower(GRAPH, ["c"], fuse=False).to_networkx()
    assert [graph.nodes[t]["key"] for t in graph] == ["a", "b", "c"]
    assert set(graph.edges) == {(0, 1), (0, 2), (1, 2)}
    assert [graph.nodes[t]["output"] for t in graph] == [False, False, True]


def test_without_networkx_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(MissingExtra, match=r"pip install 'wukong\[plots\]'"):
        lower(GRAPH, ["c"]).to_networkx()


def test_the_plan_needs_neither_networkx_nor_numpy_nor_dask() -> None:
    code = "import sys, wukong.plan.view, wukong.plan.builder; print({'networkx', 'numpy', 'redis'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"

"""What is refused before anything runs because it would go wrong without a word."""

import dask.array as da
import numpy as np
import pytest

import wukong
from wukong.errors import ConfigError, UnsupportedGraph


def test_an_array_of_the_clients_is_no_target_where_tasks_are_given_copies() -> None:
    target = np.zeros((4, 4))
    writing = da.store(da.ones((4, 4), chunks=2), target, compute=False)
    with pytest.raises(UnsupportedGraph, match="NumPy array of the client's"):
        wukong.compute(writing, store="embedded")
    wukong.compute(writing, granules="threads")
    assert target.sum() == 16


def test_a_source_in_memory_may_be_stored_elsewhere_from_copies(tmp_path) -> None:
    path = tmp_path / "target"

    class OnDisk:
        def __setitem__(self, region, block):
            (path / f"{region[0].start}").write_bytes(block.tobytes())

    path.mkdir()
    source = da.from_array(np.arange(4.0), chunks=2)
    wukong.compute(da.store(source, OnDisk(), compute=False), store="embedded")
    assert sorted(file.name for file in path.iterdir()) == ["0", "2"]


@pytest.mark.parametrize("call", [wukong.compute, wukong.persist])
def test_a_misspelled_option_is_not_passed_over(call) -> None:
    with pytest.raises(ConfigError, match="did you mean 'store'"):
        call(da.ones(3), stroe="embedded")
    with pytest.raises(ConfigError, match="did you mean 'granules'"):
        da.ones(3).compute(scheduler=wukong.get, granule="inline")


def test_a_raw_graph_without_keys_is_not_given_back_as_it_is() -> None:
    with pytest.raises(ConfigError, match="keys="):
        wukong.compute({"a": (int, "1")})

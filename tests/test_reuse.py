"""Results kept from one compute to the next: which, how many, and that nobody can spoil them."""

import threading

import dask
import dask.array as da
import dask.bag as db
import numpy as np
import pytest
from dask import delayed
from hypothesis import given, settings
from hypothesis import strategies as st

import wukong
from wukong import reuse
from wukong.errors import ConfigError

pytestmark = pytest.mark.timeout(60)

ran = []


@pytest.fixture(autouse=True)
def scheduler():
    ran.clear()
    with dask.config.set(scheduler="wukong"):
        yield
    assert reuse.active() is None


def note(block, name="it"):
    ran.append(name)
    return block + 1


def test_a_cell_that_is_run_again_does_not_run_the_graph_again():
    def cell():
        return delayed(note, pure=True)(3).compute(), da.arange(20, chunks=5).map_blocks(
            note, meta=np.arange(0)
        ).sum().compute()

    with wukong.cache("10MB") as kept:
        first = cell()
        count = len(ran)
        assert count >= 5
        assert cell() == first == (4, 210)
        assert len(ran) == count
        # The delayed one, and the four sums of blocks.
        assert (kept.hits, kept.misses, len(kept)) == (5, 5, 5)
        assert wukong.last_run().where.endswith("; 4 results from the cache")
        delayed(note, pure=True)(3).compute()
        assert wukong.last_run().where == "1 result from the cache"
        kept.clear()
        assert (len(kept), kept.nbytes) == (0, 0)
        assert cell() == first
        assert len(ran) == 2 * count
    assert cell() == first
    assert len(ran) == 3 * count


def test_kept_results_are_used_in_larger_graphs():
    x = delayed(note, pure=True)(1)
    with wukong.cache("10MB"):
        assert x.compute() == 2
        assert delayed(note, pure=True)(x).compute() == 3
        assert ran == ["it", "it"]
        assert wukong.last_run().where.endswith("; 1 result from the cache")


impure = delayed(note)(np.ones(2))


@pytest.mark.parametrize(
    "build",
    [
        lambda: delayed(note)(1, dask_key_name="mine"),
        lambda: delayed(note, pure=True)(delayed(note, pure=False)(1, dask_key_name="chosen")),
        lambda: impure,
        lambda: delayed(note, pure=True)(impure),
        lambda: da.from_delayed(impure, (2,), float).sum(),
    ],
    ids=["named", "of a named one", "impure", "of an impure one", "an array of an impure one"],
)
def test_what_is_not_known_by_its_name_is_computed_each_time(build):
    with wukong.cache("10MB") as kept:
        build().compute()
        count = len(ran)
        build().compute()
        assert len(ran) == 2 * count
        assert kept.hits == 0
        assert len(kept) == 0


def test_what_writes_is_run_each_time(tmp_path):
    bag = db.from_sequence(["text"], npartitions=1).map(str.upper).to_textfiles(str(tmp_path / "*.txt"), compute=False)
    target, array = np.zeros(4), da.ones(4, chunks=2)
    with wukong.cache("10MB"):
        for _ in range(2):
            dask.compute(bag)
            assert [path.unlink() for path in tmp_path.glob("*.txt")] == [None]
            array.store(target)
            assert (target == 1).all()
            target[:] = 0


def test_dataframes_and_bags_are_kept():
    pd, dd = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")

    def cell():
        frame = dd.from_pandas(pd.DataFrame({"key": [1, 2] * 10, "value": range(20)}), npartitions=4)
        total = frame.map_partitions(note, meta=frame._meta).groupby("key").value.sum().compute().to_dict()
        return total, db.from_sequence(range(10), npartitions=3).map(note).sum().compute(), frame.value.sum().compute()

    with wukong.cache("10MB") as kept:
        first = cell()
        count = len(ran)
        assert cell() == first == ({2: 100, 3: 110}, 55, 190)
        assert len(ran) == count
        assert kept.hits >= 3


def test_raw_graphs_with_names_of_their_own_are_computed_each_time():
    with wukong.cache("10MB"):
        assert wukong.compute({"x": (note, 1)}, keys="x") == 2
        assert wukong.compute({"x": (note, 5)}, keys="x") == 6


def test_values_given_under_names_of_their_own_are_not_taken_for_the_same():
    with wukong.cache("10MB"), wukong.Client(workers=1) as client:
        for number in (1, 10):
            future = client.scatter({"data": number})["data"]
            assert delayed(note, pure=True)(future).compute() == number + 1
            del future


def test_changes_in_place_harm_nobody():
    x = da.ones(100_000, chunks=50_000) * 3  # larger than what is kept as bytes
    small = da.ones(10, chunks=5) * 3
    with wukong.cache("10MB") as kept:
        for array in (x, small):
            for _ in range(3):
                result = array.compute()
                assert (result == 3).all()
                assert result.flags.writeable
                result[:] = 0
        # Two blocks each.
        assert kept.hits == 8


@pytest.mark.parametrize("size", [10, 100_000])
def test_each_reader_has_a_copy_of_his_own(size):
    # One value and not parts, which would be put together anew for each.
    x = delayed(np.ones, pure=True)(size)
    with wukong.cache("10MB"):
        x.compute()
        one, two = x.compute(), x.compute()
        one[:] = 7
        assert (two == 1).all()
    # They outlive the cache.
    assert (one == 7).all()
    assert (two == 1).all()


def test_there_is_never_more_than_there_is_room_and_what_saves_most_stays():
    with wukong.cache(10_000) as kept:
        kept._keep("dear", b"x" * 4000, 10.0)
        kept._keep("cheap", b"x" * 4000, 0.1)
        kept._keep("used", b"x" * 1000, 1.0)
        assert kept._find(["used"]) == {"used": b"x" * 1000}
        kept._keep("new", b"x" * 4000, 1.0)
        assert kept.nbytes <= 10_000
        assert "cheap" not in kept
        assert {"dear", "used", "new"} <= set(kept._kept)
        kept._keep("large", b"x" * 20_000, 1000.0)
        assert "large" not in kept
        # Everything ages: what was dear once and is not used gives way in the end.
        for number in range(5000):
            kept._keep(f"stream-{number}", b"x" * 4000, 1.0)
        assert "dear" not in kept


def test_what_cannot_be_copied_is_not_kept():
    with wukong.cache("10MB") as kept:
        lock = delayed(threading.Lock, pure=True)()
        assert not lock.compute().locked()
        assert len(kept) == 0


def test_sizes_are_checked_and_none_keeps_nothing():
    with pytest.raises(ConfigError, match="nbytes='much'"):
        wukong.cache("much")
    with wukong.cache("1MB") as outer:
        with wukong.cache(None):
            assert reuse.active() is None
        assert reuse.active() is outer
        assert repr(outer) == "<cache: 0 results, 0 of 1,000,000 bytes, 0 hits, 0 misses>"


def test_several_keys_are_found_and_kept_one_by_one():
    one, two, three = (delayed(note, pure=True)(n, name=str(n)) for n in range(3))
    with wukong.cache("10MB") as kept:
        assert dask.compute(one, two) == (1, 2)
        assert dask.compute(two, three, [one]) == (2, 3, [1])
        assert ran == ["0", "1", "2"]
        assert kept.hits >= 1


def test_many_threads_may_compute_with_one_cache():
    found = []

    def use():
        found.extend(delayed(note, pure=True)(n % 5).compute() for n in range(20))

    with wukong.cache(2000) as kept:
        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert kept.nbytes == sum(one.nbytes for one in kept._kept.values()) <= 2000
    assert sorted(found) == sorted([n % 5 + 1 for n in range(20)] * 8)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 3000), st.floats(0.001, 10))), st.integers(500, 5000))
def test_the_books_are_right_whatever_is_kept(stream, limit):
    with wukong.cache(limit) as kept:
        for name, size, seconds in stream:
            name = f"{name}-{size}"
            kept._keep(name, b"x" * size, seconds)
            assert kept.nbytes == sum(one.nbytes for one in kept._kept.values()) <= limit
            for value in kept._find([name]).values():
                assert value == b"x" * size

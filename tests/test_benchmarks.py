"""The benchmarks measure what they say: every result is held against the truth, and nothing outlives them."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dask
import psutil
import pytest

from benchmarks.ladder import pool, rungs
from benchmarks.ladder.workloads import WORKLOADS
from benchmarks.peers import race
from benchmarks.peers.contestants import CONTESTANTS
from benchmarks.peers.plot import plot
from benchmarks.peers.race import Entry, Failed, Figures, same
from benchmarks.peers.report import judge, means, summary, table
from benchmarks.peers.rows import ROWS
from wukong.scheduler import stores
from wukong.storage.server import EmbeddedServer

TRIVIAL = ROWS["spins"]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    me = psutil.Process()
    before = set(me.children(recursive=True))
    yield
    _, alive = psutil.wait_procs(set(me.children(recursive=True)) - before, 10.0)
    # multiprocessing's own, which lives as long as this process
    assert [p for p in alive if "resource_tracker" not in " ".join(p.cmdline())] == []


@pytest.mark.parametrize("name", ROWS)
def test_what_a_row_makes_comes_out_as_its_truth_says(name: str) -> None:
    row = ROWS[name]
    made, truth = row.make(*row.tiny), row.truth(*row.tiny)
    if row.way == "compute":
        (found,) = dask.compute(*made, scheduler="sync")
    else:
        function, arguments = made
        found = [function(argument) for argument in arguments]
    assert same(found, truth)


@pytest.mark.parametrize("name", ROWS)
def test_every_row_has_a_size_for_each_occasion(name: str) -> None:
    row = ROWS[name]
    assert {row.about.format(*row.size(which)) for which in ("full", "quick", "tiny")}


def test_a_result_that_differs_is_not_the_same() -> None:
    import numpy as np
    import pandas as pd

    table = pd.DataFrame({"x": [1, 2]}, index=[5, 6])
    assert same(table.iloc[::-1].astype(float), table)
    assert not same(table.assign(x=[1, 3]), table)
    assert not same(table.set_axis([5, 7]), table)
    assert same(1.0 + 1e-12, 1.0)
    assert not same(1.0 + 1e-6, 1.0)
    assert not same(np.ones(3), np.ones(2))
    assert not same([1, 2], [2, 1])
    assert not same(8.0, 9)


def test_every_contestant_calls_a_function_and_is_gone_afterwards() -> None:
    names = [name for name in CONTESTANTS if hasattr(CONTESTANTS[name], "map")]
    assert {"wukong", "dask processes", "distributed", "ray", "lithops", "pool"} < set(names)
    seen: set[psutil.Process] = set()
    me = psutil.Process()
    others = set(me.children(recursive=True))

    def look(_: str) -> None:
        seen.update(set(me.children(recursive=True)) - others)

    figures = race.race(TRIVIAL, TRIVIAL.tiny, names, 2, 60.0, 2, look)
    assert {name: each.failed for name, each in figures.items()} == dict.fromkeys(names)
    assert all(each.first and len(each.warm) == 2 for each in figures.values())
    assert len(seen) > len(names)
    assert [process for process in seen if process.is_running()] == []


@pytest.mark.parametrize("name", ["tree", "one by one", "at once"])
def test_other_rows_are_run_by_those_who_can(name: str) -> None:
    row = ROWS[name]
    names = [who for who in ("wukong", "dask sync", "pool", "socket") if hasattr(CONTESTANTS[who], row.way)]
    names += ["lithops"] * (name == "at once")
    assert len(names) > 1
    figures = race.race(row, row.tiny, names, 1, 60.0, 2)
    assert {each.failed for each in figures.values()} == {None}


def test_the_fastest_makes_three_calls_however_little_time_there_is() -> None:
    figures = race.race(TRIVIAL, TRIVIAL.tiny, ["dask sync"], 5, 0.0, 1)
    assert len(figures["dask sync"].warm) == 3


def test_slow_contestants_make_fewer_rounds() -> None:
    fast, _, slow = entries = [SimpleNamespace(figures=Figures(9.0, [warm])) for warm in (1.0, 2.9, 3.1)]
    assert [race._again(entry, entries, 0.0) for entry in entries] == [True, True, False]
    assert race._again(slow, entries, 6.3)
    fast.figures.warm += [1.0, 1.0]
    assert race._again(fast, entries, 4.0)
    assert not race._again(fast, entries, 3.9)


@pytest.fixture
def entry(tmp_path: Path) -> Iterator[Entry]:
    entry = Entry("pool", TRIVIAL, TRIVIAL.tiny, 1, tmp_path)
    assert entry.answer() == "ready"
    yield entry
    entry.stop()
    entry.end()


def test_a_wrong_result_is_found(entry: Entry) -> None:
    truth = TRIVIAL.truth(*TRIVIAL.tiny)
    race._take(entry, truth, warm=False)
    with pytest.raises(Failed, match="WRONG"):
        race._take(entry, [*truth[:-1], truth[-1] + 1], warm=True)
    assert entry.figures.warm == []


def test_a_contestant_that_dies_is_out_and_its_workers_are_ended(entry: Entry) -> None:
    entry.call()
    host = psutil.Process(entry._process.pid)
    workers = host.children(recursive=True)
    assert workers
    host.kill()
    with pytest.raises((Failed, OSError)):
        entry.call()
    entry.end()
    assert [worker for worker in workers if worker.is_running()] == []


def test_a_contestant_that_does_not_stop_is_ended_with_all_it_has(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry.call()
    host = psutil.Process(entry._process.pid)
    workers = host.children(recursive=True)
    host.suspend()
    monkeypatch.setattr(race, "END", 0.5)
    with pytest.raises(Failed, match="gave no answer"):
        entry.answer(0.1)
    entry.end()
    assert entry.figures.failed == "did not stop within 0 s"
    assert [process for process in (host, *workers) if process.is_running()] == []


def test_goals_are_held_against_the_best_peer_and_its_spread() -> None:
    def judged(name: str, ours: float, **theirs: list[float]) -> list[str]:
        figures = {"wukong": Figures(ours, [ours])}
        figures |= {who.replace("_", " "): Figures(1.0, warm) for who, warm in theirs.items()}
        return judge(ROWS[name], ROWS[name].tiny, figures, 2)["missed"]

    assert judged("gemm", 1.04, dask_sync=[1.0], ray=[2.0]) == []
    assert judged("gemm", 1.06, dask_sync=[1.0], ray=[2.0]) == ["1.06 of dask sync, not 1.05"]
    assert judged("gemm", 1.2, dask_sync=[0.9, 1.0, 1.3], ray=[2.0]) == []
    assert judged("tree", 0.2, dask_sync=[1.0]) == []
    assert len(judged("tree", 0.3, dask_sync=[0.9, 1.0, 1.3])) == 1
    assert judged("spins", 0.54, dask_sync=[1.0], pool=[0.6]) == []
    assert len(judged("spins", 0.56, dask_sync=[1.0], pool=[0.6])) == 1
    # The floor is no peer.
    assert judged("one by one", 1.0, pool=[1.0], socket=[0.1]) == []


def test_a_report_names_what_was_missed_and_the_means(tmp_path: Path) -> None:
    figures = {
        "wukong": Figures(0.1, [0.02, 0.04]),
        "dask sync": Figures(0.1, [0.01]),
        "distributed": Figures(1.0, [0.3]),
        "ray": Figures(failed="no such thing"),
    }
    rows = [judge(ROWS[name], ROWS[name].tiny, figures, 2) for name in ("tree", "gemm")]
    assert means(rows) == pytest.approx({"best peer": 3.0, "distributed": 0.1})
    assert "failed: no such thing" in table(rows[0])
    text = summary(rows)
    assert "to best peer: 3.000, goal 0.5: MISSED" in text
    assert "to distributed: 0.100, goal 0.12: met" in text
    assert "missed: tree: 3.00 of dask sync, not 0.2" in text
    plot(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 0


def test_a_contestant_that_fails_loses_its_row_and_no_other() -> None:
    figures = {"wukong": Figures(failed="it was tired"), "dask sync": Figures(1.0, [1.0])}
    row = judge(ROWS["tree"], ROWS["tree"].tiny, figures, 2)
    assert row["missed"] == ["wukong failed: it was tired"]
    assert means([row]) == {}


@pytest.fixture(scope="module")
def climbed() -> Iterator[tuple[pool.Pool, str]]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            patch.setenv(name, "1")
        with EmbeddedServer() as server, pool.Pool(server.url, 2) as running:
            yield running, server.url
    stores.close()


#: Values of half a megabyte, which ride with no edge.
SIZES = {"gemm": (1024, 256), "tsqr": (2048, 256, 8), "svd": (1024, 256, 250)}


@pytest.mark.parametrize("name", WORKLOADS)
def test_each_rung_of_the_ladder_computes_the_same_with_less_traffic(name: str, climbed: tuple[pool.Pool, str]) -> None:
    running, _ = climbed
    plan = pool.compiled(WORKLOADS[name].make(*SIZES[name])[0])
    truth = WORKLOADS[name].truth(*SIZES[name])
    found = {}
    for rung in rungs.RUNGS:
        value, found[rung] = running.run(plan, rung)
        assert same(value, truth)
        assert found[rung].tally.tasks == plan.size
    stateless, become, hold, cluster = (found[rung].tally for rung in rungs.RUNGS)
    assert (stateless.executors, stateless.becomes, stateless.writes) == (plan.size, 0, plan.size)
    assert become.becomes > 0
    assert (become.writes, become.held) == (plan.size, 0)
    assert hold.writes < plan.size
    assert found["stateless"].bytes > found["+ become"].bytes > found["+ hold"].bytes
    assert found["stateless"].round_trips > found["+ become"].round_trips
    # In a tree each value has one reader, so there is nothing to cluster.
    if name != "tsqr":
        assert cluster.invocations < hold.invocations
        assert found["+ cluster"].bytes < 0.95 * found["+ hold"].bytes


def test_bytes_on_the_wire_are_those_that_the_server_counts(climbed: tuple[pool.Pool, str]) -> None:
    running, url = climbed
    plan = pool.compiled(WORKLOADS["gemm"].make(*SIZES["gemm"])[0])
    link = stores.at(url, "").control.link

    def counted() -> int:
        text = bytes(link.call(b"", b"INFO", b"stats")).decode()
        fields = dict(line.split(":") for line in text.split("\r\n") if ":" in line)
        return int(fields["total_net_input_bytes"]) + int(fields["total_net_output_bytes"])

    before = counted()
    _, figures = running.run(plan, "stateless")
    after = counted()
    assert figures.bytes > 10**6
    # INFO itself, and the removal of the job, come on top.
    assert 0 <= after - before - figures.bytes < 20_000


def test_a_task_that_fails_ends_its_job_on_the_ladder(climbed: tuple[pool.Pool, str]) -> None:
    from dask import delayed

    from wukong.errors import JobStalled

    running, _ = climbed
    with pytest.raises(JobStalled, match="ZeroDivisionError"):
        running.run(pool.compiled(delayed(divmod)(1, 0)), "stateless")
    value, _ = running.run(pool.compiled(delayed(divmod)(7, 2)), "stateless")
    assert value == (3, 1)

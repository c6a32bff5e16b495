"""What a run tells of its tasks: by function, along the critical path, wherever they ran."""

import gc
import pickle
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import wukong
from wukong.diagnostics.profile import critical_path, functions, name_of
from wukong.diagnostics.summary import html, summary
from wukong.events import FEW, KEPT, Part, Run, Spans, Stamps


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("x", "x"),
        ("x17", "x"),
        (("x", 3, 1), "x"),
        ("add-f2c27ec5-b995-4df8-addf-0a1b2c3d4e5f", "add"),
        (("sum-partial-7250dc37a76697c9b16fe874f465b27b", 0, 0), "sum-partial"),
        ("from_pandas-2", "from_pandas"),
        ("read_csv", "read_csv"),
        ("finalize-hlgfinalizecompute-dbcfb5d3f3d34ea3846a655a41d35606", "finalize-hlgfinalizecompute"),
        (b"raw-12", "raw"),
        (7, "7"),
        ((("a", 1), 2), "a"),
        ("", ""),
    ],
)
def test_tasks_are_named_without_what_tells_them_apart(key: Any, name: str) -> None:
    assert name_of(key) == name


def spans(*rows: tuple[int, float, float, Any]) -> Spans:
    kept = Spans()
    for row in rows:
        kept.add(*row)
    return kept


class Sized:
    def __init__(self, nbytes: Any) -> None:
        self.nbytes = nbytes


GRAPH: dict[str, list[str]] = {"a1": [], "a2": [], "b1": ["a1"], "b2": ["a1", "a2"], "c": ["b1", "b2"]}
KEYS = list(GRAPH)


def reads(task: int) -> list[str]:
    return GRAPH[KEYS[task]]


RUN = Run(
    tasks=5,
    seconds=10.0,
    parts=(
        Part("client", KEYS, reads, spans((0, 100.0, 1.0, None), (1, 101.0, 2.0, Sized(10)))),
        Part("processes", KEYS, reads, spans((2, 102.0, 3.0, Sized(5)), (3, 104.0, 2.0, None), (4, 107.0, 1.0, None))),
    ),
)


def test_functions_are_added_up_over_all_places_and_the_longest_come_first() -> None:
    assert [tuple(row) for row in functions(RUN)] == [
        ("b", 2, 5.0, 2.5, 3.0, "processes", 5.0),
        ("a", 2, 3.0, 1.5, 2.0, "client", 10.0),
        ("c", 1, 1.0, 1.0, 1.0, "processes", 0.0),
    ]


def test_the_critical_path_goes_back_by_the_inputs_that_came_last() -> None:
    assert [tuple(step) for step in critical_path(RUN)] == [
        ("a2", "a", 2.0, 1.0),
        ("b2", "b", 2.0, 1.0),
        ("c", "c", 1.0, 1.0),
    ]


def test_a_critical_path_of_any_length_needs_no_recursion() -> None:
    length = 20_000
    stamps = Stamps()
    stamps.times.extend(float(i) for i in range(length + 1))
    keys = [f"x{i}" for i in range(length)]
    run = Run(parts=(Part("client", keys, lambda task: keys[task - 1 : task] if task else [], stamps),))
    assert len(run.critical_path) == length


def test_an_input_computed_again_later_is_not_what_was_waited_for() -> None:
    again = spans((0, 0.0, 1.0, None), (1, 5.0, 1.0, None), (0, 7.0, 1.0, None), (2, 9.0, 1.0, None))
    keys = ["a", "b", "c"]
    run = Run(parts=(Part("processes", keys, lambda task: keys[task - 1 : task] if task else [], again),))
    assert [step.key for step in run.critical_path] == ["b", "c"]


def test_a_run_without_spans_has_neither_functions_nor_a_path() -> None:
    assert Run().functions == []
    assert Run().critical_path == []
    assert "function" not in summary(Run(tasks=1))


@pytest.mark.parametrize("nbytes", [None, "many", 1.5, True, 10**400])
def test_a_size_that_is_none_counts_nothing_and_breaks_nothing(nbytes: Any) -> None:
    (span,) = spans((3, 1.0, 2.0, Sized(nbytes)))
    assert tuple(span) == (3, 1.0, 2.0, 0.0)


def test_a_value_that_refuses_to_tell_its_size_breaks_nothing() -> None:
    class Shy:
        @property
        def nbytes(self) -> int:
            raise RuntimeError

    (span,) = spans((3, 1.0, 2.0, Shy()))
    assert span.nbytes == 0.0


def test_spans_go_to_another_process_as_bytes_and_are_added_there() -> None:
    here, there = spans((1, 1.0, 1.0, None)), spans((2, 2.0, 2.0, Sized(4)))
    sent = there.take()
    assert isinstance(sent, bytes)
    assert len(there) == 0
    here.receive(pickle.loads(pickle.dumps(sent)))
    assert [tuple(span) for span in here] == [(1, 1.0, 1.0, 0.0), (2, 2.0, 2.0, 4.0)]


def test_spans_added_from_many_threads_stay_whole() -> None:
    kept = Spans()

    def add(first: int) -> None:
        for task in range(first, first + 5000):
            kept.add(task, float(task), float(task), Sized(task))

    threads = [threading.Thread(target=add, args=(5000 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(span.task for span in kept) == list(range(20_000))
    assert all(span.task == span.began == span.seconds == span.nbytes for span in kept)


def test_what_is_kept_is_bounded_and_says_that_it_was_cut() -> None:
    kept = spans(*[(i, 0.0, 1.0, None) for i in range(10)])
    kept.keep(10)
    assert (len(kept), kept.cut) == (10, False)
    kept.keep(4)
    assert ([span.task for span in kept], kept.cut) == ([0, 1, 2, 3], True)


def inc(x: int) -> int:
    return x + 1


def chain(length: int) -> dict[str, Any]:
    return {"x0": 1, **{f"x{i}": (inc, f"x{i - 1}") for i in range(1, length)}}


@pytest.mark.parametrize("granules", ["inline", "threads"])
def test_every_task_is_told_of_where_it_ran(granules: str) -> None:
    graph = {"a": (inc, 1), "b1": (inc, "a"), "b2": (inc, "a"), "c": (max, "b1", "b2")}
    wukong.compute(graph, keys="c", granules=granules, workers=2)
    run = wukong.last_run()
    assert run is not None
    where = "client" if granules == "inline" else "threads"
    assert {(row.name, row.tasks, row.where) for row in run.functions} == {
        ("a", 1, where),
        ("b", 2, where),
        ("c", 1, where),
    }
    assert [step.name for step in run.critical_path] == ["a", "b", "c"]


def test_tasks_in_processes_are_all_told_of() -> None:
    graph = {**{f"b{i}": (inc, i) for i in range(20)}, "c": (sum, [f"b{i}" for i in range(20)])}
    assert wukong.compute(graph, keys="c", granules="processes", workers=2) == 210
    run = wukong.last_run()
    assert run is not None
    assert {(row.name, row.tasks, row.where) for row in run.functions} == {
        ("b", 20, "processes"),
        ("c", 1, "processes"),
    }
    assert [step.name for step in run.critical_path] == ["b", "c"]


def test_of_very_many_very_short_tasks_the_first_are_told_of() -> None:
    wukong.compute(chain(4 * FEW), keys=f"x{4 * FEW - 1}", granules="inline")
    run = wukong.last_run()
    assert run is not None
    assert run.tasks == 4 * FEW
    (row,) = run.functions
    assert row.tasks in (FEW + 1, 4 * FEW)
    assert (f"function (of {FEW + 1:,} tasks)" in summary(run)) == (row.tasks < run.tasks)


def test_no_value_and_no_function_is_kept() -> None:
    def make(array: Any) -> Any:
        return array * 2

    literal = np.ones(1000)
    alive = [weakref.ref(literal), weakref.ref(make)]
    for granules in ("inline", "threads"):
        result = wukong.compute({"a": (make, literal), "b": (np.sum, "a")}, keys="b", granules=granules, workers=2)
        assert result == 2000
        run = wukong.last_run()
        assert run is not None
        assert run.functions
    del make, literal
    gc.collect()
    assert [ref() for ref in alive] == [None, None]
    assert KEPT >= FEW


def test_a_summary_has_the_table_the_path_and_the_reasons() -> None:
    RUN.reasons = ("a: threads: it writes the global `counter`",)
    try:
        lines = summary(RUN).splitlines()
        assert repr(RUN) == summary(RUN)
    finally:
        RUN.reasons = ()
    assert lines[8:] == [
        "function  tasks   total    mean  longest  values  where",
        "b             2  5.00 s  2.50 s   3.00 s     5 B  processes",
        "a             2  3.00 s  1.50 s   2.00 s    10 B  client",
        "c             1  1.00 s  1.00 s   1.00 s          processes",
        "",
        "critical path: 5.00 s of 10.0 s, in a 2.00 s > b 2.00 s > c 1.00 s",
        "",
        "a: threads: it writes the global `counter`",
    ]


def test_a_notebook_gets_the_same_with_names_escaped() -> None:
    run = Run(
        tasks=1, parts=(Part("client", ["<b>"], lambda _: [], spans((0, 1.0, 1.0, None))),), reasons=("<i> & why",)
    )
    text = run._repr_html_()
    assert text == html(run)
    assert "<td>&lt;b&gt;</td>" in text
    assert "&lt;i&gt; &amp; why" in text
    assert "<b>" not in text
    assert text.count("<table>") == text.count("</table>") == 2


def test_a_long_table_is_cut_and_adds_up_the_rest() -> None:
    many = spans(*[(i, float(i), 1.0, None) for i in range(26)])
    run = Run(parts=(Part("client", [chr(97 + i) for i in range(26)], lambda _: [], many),))
    assert "(14 more)" in summary(run)
    row = next(line for line in summary(run).splitlines() if line.startswith("(14 more)"))
    assert row.split()[2:] == ["14", "14.0", "s"]

"""What tasks print and log reaches the client, in order, before their results do."""

import contextlib
import io
import logging
import multiprocessing
import os
import sys
import threading

import pytest

from tests.platforms.packs import Started


@pytest.fixture(scope="module")
def started():
    with Started(1) as started:
        yield started


def test_what_is_printed_is_there_before_the_result(started, capsys):
    def talk(i):
        print("line", i)
        print("half", end="")
        print(" a line", i, end="")

    for i in range(10):
        started.run(talk, i)
        assert capsys.readouterr().out == f"line {i}\nhalf a line {i}"


def test_errors_are_said_apart(started, capsys):
    started.run(lambda: print("trouble", file=sys.stderr))
    assert capsys.readouterr() == ("", "trouble\n")


def test_much_output_of_several_threads_arrives_whole(started, capsys):
    def talk():
        threads = [threading.Thread(target=lambda i=i: [print(f"{i} " * 50) for _ in range(200)]) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    started.run(talk)
    words = capsys.readouterr().out.split()
    assert {word: words.count(word) for word in "0123"} == dict.fromkeys("0123", 200 * 50)


def test_a_task_may_have_a_stream_of_its_own(started, capsys):
    def talk():
        with contextlib.redirect_stdout(io.StringIO()) as own:
            print("to itself")
        print("to all")
        return own.getvalue()

    assert started.run(talk) == "to itself\n"
    assert capsys.readouterr().out == "to all\n"


def test_a_task_that_closes_its_output_costs_only_its_words():
    def close():
        sys.stdout.close()
        sys.stdout = io.StringIO()
        sys.stdout.close()

    # What it leaves behind is in the way of other tests.
    with Started(1) as started:
        started.run(close)
        assert started.run(len, "ab") == 2


def test_a_client_without_output_is_no_obstacle(monkeypatch):
    with Started(1) as started:
        monkeypatch.setattr(sys, "stdout", None)
        assert started.run(lambda: print("to nobody") or 3) == 3


def test_the_descriptor_of_the_stream_is_that_of_programs(started):
    assert started.run(lambda: (sys.stdout.fileno(), sys.stderr.fileno())) == (1, 2)


def test_records_are_handled_by_the_logger_of_their_name(started, caplog):
    def log():
        logger = logging.getLogger("wukong.output.test")
        logger.debug("not to be seen")
        logger.warning("seen %s times", 3)
        logger.info("%s", threading.Lock())
        try:
            raise ValueError("wrong")
        except ValueError:
            logger.exception("it went")

    with caplog.at_level(logging.INFO, "wukong.output.test"):
        started.run(log)
    records = [record for record in caplog.records if record.name == "wukong.output.test"]
    assert [record.levelname for record in records] == ["WARNING", "INFO", "ERROR"]
    assert records[0].args == (3,)
    assert records[0].process != os.getpid()
    assert "lock" in records[1].getMessage()
    assert "ValueError: wrong" in records[2].exc_text


def test_what_a_fork_of_a_worker_prints_does_not_go_through_it():
    def fork():
        from wukong.platforms.local import worker

        context = multiprocessing.get_context("fork")
        ours, its = context.Pipe()

        def child():
            its.send((worker.current is None, type(sys.stdout).__name__))

        process = context.Process(target=child)
        process.start()
        answer = ours.recv()
        process.join()
        return answer, process.exitcode, worker.current is not None

    with Started(1) as started:
        (alone, stream), status, itself = started.run(fork)
        assert (alone, status, itself) == (True, 0, True)
        assert stream == "TextIOWrapper"
        assert started.run(len, "ab") == 2

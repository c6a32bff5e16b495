"""What tasks find around them in a process: what the client has at that moment."""

import importlib
import logging
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import dask
import numpy as np
import pytest

from tests.platforms.packs import Started
from wukong.platforms.local.surroundings import Capture


@pytest.fixture(scope="module")
def started():
    with Started(1) as started:
        yield started


def test_the_working_directory_follows(started, tmp_path, monkeypatch):
    assert started.run(os.getcwd) == os.getcwd()
    monkeypatch.chdir(tmp_path)
    assert started.run(os.getcwd) == str(tmp_path)


def test_a_working_directory_that_is_gone_is_no_obstacle(started, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert started.run(len, "ab") == 2


def test_the_environment_follows_and_what_was_removed_is_removed(started, monkeypatch):
    monkeypatch.setenv("WUKONG_SURROUNDINGS", "one")
    assert started.run(os.getenv, "WUKONG_SURROUNDINGS") == "one"
    monkeypatch.setenv("WUKONG_SURROUNDINGS", "other")
    assert started.run(os.getenv, "WUKONG_SURROUNDINGS") == "other"
    monkeypatch.delenv("WUKONG_SURROUNDINGS")
    assert started.run(os.getenv, "WUKONG_SURROUNDINGS") is None


def test_what_a_task_has_added_to_the_environment_stays_there(started, monkeypatch):
    started.run(lambda: os.environ.update(WUKONG_OF_A_TASK="kept"))
    monkeypatch.setenv("WUKONG_SURROUNDINGS", "changes")
    assert started.run(os.getenv, "WUKONG_OF_A_TASK") == "kept"
    assert "WUKONG_OF_A_TASK" not in os.environ


def test_modules_are_found_where_the_client_finds_them(started, tmp_path, monkeypatch):
    (tmp_path / "found_by_path.py").write_text("def f(): return __file__")
    monkeypatch.syspath_prepend(tmp_path)
    import found_by_path

    assert started.run(found_by_path.f) == str(tmp_path / "found_by_path.py")
    del sys.modules["found_by_path"]


def test_a_module_that_the_client_loads_again_is_loaded_again_there(started, tmp_path, monkeypatch):
    def write(text):
        # Of another length each time: Python goes by size and time, and that by the second.
        (tmp_path / "loaded_again.py").write_text(text)
        importlib.invalidate_caches()

    write("def f(): return 1")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("loaded_again")
    other = module.f

    def indirect():
        return other()

    assert [started.run(module.f), started.run(indirect)] == [1, 1]
    write("def f(): return 1 + 1")
    importlib.reload(module)
    other = module.f
    assert [started.run(module.f), started.run(indirect)] == [2, 2]
    del sys.modules["loaded_again"]
    write("def f(): return 1 + 1 + 1")
    module = importlib.import_module("loaded_again")
    assert started.run(module.f) == 3
    write("this is no Python any more")
    with pytest.raises(SyntaxError):
        importlib.reload(module)
    assert started.run(len, "ab") == 2
    with pytest.raises(SyntaxError):
        started.run(module.f)
    del sys.modules["loaded_again"]


def test_dasks_configuration_follows_but_for_the_scheduler(started):
    def look(name):
        import dask

        return dask.config.get(name, None)

    with dask.config.set({"wukong-test.deep": [1]}, scheduler="sync"):
        assert started.run(look, "wukong-test.deep") == [1]
        assert started.run(look, "scheduler") == "wukong"
        dask.config.config["wukong-test"]["deep"].append(2)
        assert started.run(look, "wukong-test.deep") == [1, 2]
    assert started.run(look, "wukong-test") is None


def test_configuration_that_cannot_travel_is_left_out(started):
    def look():
        import dask

        return dask.config.get("pool", None), dask.config.get("wukong-test")

    with ThreadPoolExecutor(1) as pool, dask.config.set({"pool": pool, "wukong-test": {"kept": 1, "pool": pool}}):
        assert started.run(look) == (None, {"kept": 1})


def test_filters_of_warnings_follow(started):
    def warn():
        warnings.warn("from a task", UserWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="from a task"):
            started.run(warn)
        warnings.simplefilter("ignore")
        assert started.run(warn) is None


def test_levels_of_loggers_follow(started):
    def level(name):
        return logging.getLogger(name).level, logging.getLogger(name).isEnabledFor(logging.CRITICAL)

    logger = logging.getLogger("wukong.surroundings.test")
    try:
        logger.setLevel(logging.DEBUG)
        assert started.run(level, logger.name) == (logging.DEBUG, True)
        logger.setLevel(logging.NOTSET)
        assert started.run(level, logger.name) == (logging.NOTSET, True)
        logging.disable(logging.CRITICAL)
        assert started.run(level, logger.name) == (logging.NOTSET, False)
    finally:
        logging.disable(logging.NOTSET)


def test_what_numpy_does_about_floating_point_errors_follows(started):
    def divide():
        return 1 / np.zeros(1)

    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        started.run(divide)
    with np.errstate(divide="ignore"):
        assert np.isinf(started.run(divide)[0])


def test_nothing_is_packed_while_nothing_changes(monkeypatch):
    capture = Capture(1)
    first = capture()
    logging.getLogger("wukong.surroundings.a.new.logger")
    assert capture() is first
    monkeypatch.setenv("WUKONG_SURROUNDINGS", "x")
    other = capture()
    assert other.digest != first.digest
    monkeypatch.delenv("WUKONG_SURROUNDINGS")
    assert capture().digest == first.digest


def test_each_call_has_the_surroundings_of_the_moment_it_was_submitted(started, monkeypatch):
    outcomes = []
    for i in range(20):
        monkeypatch.setenv("WUKONG_SURROUNDINGS", str(i // 3))
        outcomes.append(started.submit(os.getenv, "WUKONG_SURROUNDINGS"))
    assert [outcome.get() for outcome in outcomes] == [str(i // 3) for i in range(20)]

"""A pytest plugin that puts `wukong.get` in the place of every scheduler Dask knows by name or by default.

With ``--named-schedulers=dask`` it changes nothing, so that both runs differ in the scheduler only. The outcome of each
test, and how many computes went through `wukong.get`, are written to ``--outcomes``.
"""

import json
from importlib import import_module
from pathlib import Path

import pytest

outcomes: dict[str, str] = {}
computes = 0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--named-schedulers", choices=["dask", "wukong"], default="wukong")
    parser.addoption("--outcomes", type=Path)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("named_schedulers") != "wukong":
        return
    import dask.array.core as array
    import dask.bag.core as bag
    import dask.base
    import dask.multiprocessing
    import dask.threaded

    import wukong

    def get(dsk, keys, **kwargs):
        global computes
        computes += 1
        return wukong.get(dsk, keys, **kwargs)

    for name in dask.base.named_schedulers:
        dask.base.named_schedulers[name] = get
    # The name `dask.delayed` is the function's.
    delayed = import_module("dask.delayed")
    for module in (array, bag, delayed):
        module.DEFAULT_GET = get
    # Collections of the tests' own name these as their default.
    for module in (dask, dask.threaded, dask.multiprocessing):
        module.get = get
    dask.local.get_sync = get
    for kind in (array.Array, bag.Bag, bag.Item, delayed.Delayed):
        kind.__dask_scheduler__ = staticmethod(get)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # A test's outcome is its call's, unless its set-up or clean-up did not pass.
    if report.when == "call" or report.outcome != "passed":
        xfail = "x" if hasattr(report, "wasxfail") else ""
        outcomes[report.nodeid] = xfail + report.outcome


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    global computes
    computes += getattr(node, "workeroutput", {}).get("computes", 0)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["computes"] = computes


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    path = config.getoption("outcomes")
    if path and not hasattr(config, "workeroutput"):
        path.write_text(json.dumps({"computes": computes, "outcomes": outcomes}))

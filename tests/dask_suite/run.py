"""Run Dask's own installed tests twice, with Dask's schedulers and with wukong as each of them, and compare.

    python tests/dask_suite/run.py [-n PROCESSES] [--only PART_OF_A_FILE_NAME]

Fails if a test fails with wukong and not without, unless `known.txt` lists it with a reason.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import dask

HERE = Path(__file__).resolve().parent
INSTALLED = Path(dask.__file__).resolve().parent
FILES = (
    "array/tests/test_array_core.py",
    "array/tests/test_reductions.py",
    "array/tests/test_linalg.py",
    "bag/tests/test_bag.py",
    "tests/test_delayed.py",
)


def outcomes(schedulers: str, files: list[str], processes: int) -> dict[str, Any]:
    """Run the tests in an empty directory and return what the plugin wrote."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "outcomes.json")
        command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-n", str(processes), "-c", HERE / "pytest.ini"]
        command += ["-p", "wukong_suite", "-p", "no:cacheprovider", "--rootdir", INSTALLED]
        command += ["--named-schedulers", schedulers, "--outcomes", path, *(INSTALLED / file for file in files)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
        ended = subprocess.run(list(map(str, command)), cwd=scratch, env=environment, check=False, timeout=3000)
        # 1 says that tests failed; anything above, that pytest did.
        if ended.returncode > 1:
            sys.exit(f"pytest ended with {ended.returncode} on {schedulers}; its output is above")
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def known() -> dict[str, str]:
    """Return the listed tests and their reasons."""
    lines = (line.strip() for line in (HERE / "known.txt").read_text().splitlines())
    return dict(line.split(" # ", 1) for line in lines if line and not line.startswith("#"))


def main() -> int:
    """Run, compare, and say what differs; 1 if anything is worse and not listed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", dest="processes", type=int, default=2)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    files = [file for file in FILES if options.only in file]
    plain = outcomes("dask", files, options.processes)
    ours = outcomes("wukong", files, options.processes)
    if not ours["computes"]:
        sys.exit("no compute went through wukong: the plugin patches the wrong places")
    listed = known()
    worse = {
        test: (outcome, ours["outcomes"].get(test, "did not run"))
        for test, outcome in plain["outcomes"].items()
        if outcome != "failed" and ours["outcomes"].get(test) != outcome
    }
    for test, (before, after) in worse.items():
        print(f"{test}: {before} with Dask's schedulers, {after} with wukong  {listed.get(test, 'NOT LISTED')}")
    stale = [test for test in listed if test not in worse]
    for test in stale:
        print(f"{test}: listed in known.txt, but it does not differ")
    tally = {outcome: list(ours["outcomes"].values()).count(outcome) for outcome in set(ours["outcomes"].values())}
    print(f"{len(ours['outcomes'])} tests, {ours['computes']} computes through wukong, {tally}, {len(worse)} differ")
    return int(any(test not in listed for test in worse) or (bool(stale) and not options.only))


if __name__ == "__main__":
    sys.exit(main())

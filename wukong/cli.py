"""The command line: `wukong hello`, `doctor`, `simulate`, `clean`. What they do lies elsewhere, but for hello."""

import argparse
import os
import sys
from collections.abc import Sequence
from operator import add, mul

import wukong
from wukong import config
from wukong.diagnostics.summary import summary
from wukong.errors import ServerNotFound, WukongError

_GRAPH = {
    "sum of 1, 2": (add, 1, 2),
    "sum of 3, 4": (add, 3, 4),
    "product": (mul, "sum of 1, 2", "sum of 3, 4"),
}

_HELLO = """\
A graph of three tasks, as Dask writes it: two sums and their product.

    1   2       3   4
     \\ /         \\ /
     add         add        two leaves: they need nothing but what is given
        \\       /
           mul              a fan-in: it needs both

1. The client begins by itself; a graph as small as this one never leaves it."""

_STORE = """
2. The same through a private server (store="embedded"). Each leaf starts an executor; each writes what it has into the
   store; there, atomically, the one that comes last is told to become `mul`. Nobody else is asked: there is no
   scheduler. An executor that finds both leaves waiting takes both, and then goes on to `mul` at no further cost.
   (The wall time includes starting the server.)"""

_NEXT = """
Next: `wukong doctor` looks at this machine; in Python, after `import wukong`:
    x.compute(scheduler="wukong")                          any Dask collection
    wukong.compute(x, store="embedded")                    every value through a server
    wukong.compute({"a": 1, "b": (str, "a")}, keys="b")    a graph of your own"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 if something is wrong, 2 if it was not understood."""
    parser = argparse.ArgumentParser(
        prog="wukong",
        description="Dask graphs on serverless functions, with no central scheduler.",
        epilog="In Python: import wukong; x.compute(scheduler='wukong')",
    )
    parser.add_argument("--version", action="version", version=f"wukong {wukong.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    hello = commands.add_parser(
        "hello", help="a first run, explained", description="Run a graph of three tasks and say what happened."
    )
    hello.set_defaults(command=lambda _: _hello())
    doctor = commands.add_parser(
        "doctor",
        help="look whether this machine has what is needed",
        description="Look at Python, packages, processors, memory and stores. The exit status is 1 if something is "
        "wrong; what to do about it is printed with it.",
    )
    doctor.add_argument(
        "--store", metavar="URL", help=f"a store to look at as well: {' '.join(config.STORE_SCHEMES)}..."
    )
    doctor.set_defaults(command=lambda options: _doctor(options.store))
    _add_clean(commands)
    _add_simulate(commands)
    options = parser.parse_args(arguments)
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except WukongError as error:
        print(f"wukong: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever reads, as in `wukong hello | head`, has enough; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _add_simulate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "simulate",
        help="run jobs in virtual time through faults",
        description="Run the real executors, launcher and watcher in virtual time, through the faults of many seeds, "
        "and say whether anything broke what must hold. What is counted is explained in docs/reliability.md.",
    )
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many seeds (default 1000)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the first seed (default 0)")
    parser.add_argument("--seed", type=int, metavar="N", help="replay this one, with its events")
    parser.add_argument("--faults", metavar="KIND,...", help="these kinds of fault only, or `none` (default all)")
    parser.add_argument("--tasks", type=int, metavar="N", help="tasks of each job (default 1 to 16, by seed)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default 1)")
    parser.set_defaults(command=_simulate)


def _simulate(options: argparse.Namespace) -> int:
    from wukong.simulation.command import simulate

    return simulate(options.seeds, options.first, options.seed, options.faults, options.tasks, options.jobs)


def _add_clean(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "clean",
        help="remove what dead jobs left",
        description="List what jobs have in a store: their keys, bytes, when they were opened or last looked after, "
        "and when anybody touched them last; and what dead clients left on this machine: values on disk, and embedded "
        "servers. Then ask, and remove what has been idle for long, or whose client is dead. Jobs at work stay.",
    )
    parser.add_argument("--store", metavar="URL", help="a store to look at as well")
    parser.add_argument("--idle", type=float, metavar="SECONDS", help="how long a dead job is idle (default 3600)")
    parser.add_argument("--yes", action="store_true", help="remove without asking")
    parser.set_defaults(command=_clean)


def _clean(options: argparse.Namespace) -> int:
    from wukong.diagnostics import clean

    def agreed(question: str) -> bool:
        if options.yes:
            return True
        try:
            return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            return False

    if options.store is not None:
        config.resolve({"store": options.store})
    return clean.clean(options.store, clean.IDLE if options.idle is None else options.idle, agreed)


def _hello() -> int:
    print(_HELLO)
    _tell(store=None)
    try:
        print(_STORE)
        _tell(store="embedded")
    except ServerNotFound as error:
        print(f"\n   skipped: {error}")
    print(_NEXT)
    return 0


def _tell(store: str | None) -> None:
    """Run the graph and print its result and figures."""
    product = wukong.compute(_GRAPH, keys="product", store=store)
    run = wukong.last_run()
    assert run is not None
    lines = [f"{'product':<12} {product}", *summary(run).splitlines()]
    print("\n" + "\n".join("    " + line for line in lines))


def _doctor(store: str | None) -> int:
    from wukong.diagnostics.doctor import examine

    if store is not None:
        config.resolve({"store": store})
    broken = 0
    for finding in examine(store):
        print(finding, flush=True)
        broken += finding.broken
    print(f"\n{broken} to mend, see the arrows." if broken else "\nAll is well.")
    return int(bool(broken))

"""Stores under pressure: no memory, no disk, no connections, no time. A row for each."""

import contextlib
import os
import random
import shutil
import signal
import threading
from collections.abc import Iterator

from tests.faults import proxy
from tests.faults.jobs import HANGS, WAITS, Row, clean, run, settle
from tests.faults.servers import Server
from wukong.errors import StoreError
from wukong.storage.address import parse
from wukong.storage.resp import Connection, command

#: Values that the store refuses are refused to the job.
_NOWHERE = "&spill=no"


def no_room(times: int, seed: int = 0, granules: str = "threads") -> Iterator[Row]:
    """Fill the server's memory, break its disk, and send what is too large for it."""
    with Server("--maxmemory-policy", "noeviction") as server:
        rows = {
            "memory full at once (maxmemory)": ("2mb", WAITS),
            "no memory for values, no directory": ("9mb", WAITS + _NOWHERE),
            "no memory for values, which go to disk": ("9mb", WAITS),
        }
        for fault, (limit, waits) in rows.items():
            row = Row(fault)
            for number in range(seed, seed + times):

                def fill(server: Server = server, limit: str = limit) -> None:
                    server.ask(b"CONFIG", b"SET", b"maxmemory", limit.encode())

                # Nothing is freed while they run, so that there is not enough memory for all.
                at_once = limit == "2mb"
                size, wait = (40_000, random.Random(number).uniform(0.01, 0.1)) if at_once else (100_000, HANGS)
                if not at_once:
                    fill()
                    row.injected += 1
                run(row, server.url + waits, number, fill, wait, granules, leaves=24 if at_once else 60, size=size)
                settle(row, server.content)
                server.ask(b"CONFIG", b"SET", b"maxmemory", b"0")
            yield row

        server.ask(b"CONFIG", b"SET", b"proto-max-bulk-len", b"1mb")
        for fault, waits in (
            ("value too large for the store, no directory", WAITS + _NOWHERE),
            ("value too large for the store, goes to disk", WAITS),
        ):
            row = Row(fault)
            for number in range(seed, seed + times):
                run(row, server.url + waits, number, int, 0.0, granules, leaves=4, size=200_000)
            settle(row, server.content)
            yield row

    with Server("--stop-writes-on-bgsave-error", "yes") as server:
        row = Row("disk of the server full (MISCONF)")
        for number in range(seed, seed + times):

            def spoil(server: Server = server) -> None:
                # A server that has told its clients to save, and cannot, takes no more writes.
                server.ask(b"CONFIG", b"SET", b"save", b"3600 1")
                shutil.rmtree(server.directory)
                with contextlib.suppress(StoreError):
                    server.ask(b"SAVE")
                server.ask(b"BGSAVE")

            run(row, server.url + WAITS, number, spoil, random.Random(number).uniform(0.01, 0.1), granules)
            os.makedirs(server.directory, exist_ok=True)
            server.ask(b"CONFIG", b"SET", b"save", b"")
            # It let go of nothing either, as long as it could not save.
            clean(row, server)
        yield row


def crowded(times: int, seed: int = 0, granules: str = "threads", waits: str = WAITS) -> Iterator[Row]:
    """Let the server take no more connections than it has, every second time for a while only."""
    with Server() as server:
        row = Row("connections refused (maxclients)")
        for number in range(seed, seed + times):
            control = Connection(parse(server.url), ("127.0.0.1", server.port), 10.0, [0, 0, 0])
            clients = bytes(control.call(command(b"INFO", b"clients"))).split(b"connected_clients:")[1].split()[0]
            control.call(command(b"CONFIG", b"SET", b"maxclients", clients))

            def let_in(control: Connection = control) -> None:
                control.call(command(b"CONFIG", b"SET", b"maxclients", b"1000"))

            # Some of these jobs find room in time.
            run(row, server.url + waits, number, let_in, 0.5 if number % 2 == 0 else HANGS, granules)
            row.injected = number - seed + 1
            let_in()
            control.close()
        settle(row, server.content)
        yield row


def silence(times: int, seed: int = 0, granules: str = "threads", waits: str = "?timeout=2&away=3") -> Iterator[Row]:
    """Stop the server for a while, less than links wait, and for longer."""
    with Server() as server:
        for fault, seconds in (("silent for 1 s", 1.0), ("silent for ever", HANGS)):
            row = Row(fault)
            for number in range(seed, seed + times):
                over = threading.Event()

                def stop(server: Server = server, seconds: float = seconds, over: threading.Event = over) -> None:
                    os.kill(server.process.pid, signal.SIGSTOP)
                    if seconds < HANGS:
                        over.wait(seconds)
                        os.kill(server.process.pid, signal.SIGCONT)

                run(row, server.url + waits, number, stop, 0.05, granules)
                os.kill(server.process.pid, signal.SIGCONT)
            if seconds < HANGS:
                settle(row, server.content)
            else:
                clean(row, server)
            yield row


def slowness(times: int, seed: int = 0, granules: str = "threads") -> Iterator[Row]:
    """Let the server take half a second for each answer, while links wait for longer, and for less."""
    with Server() as server:

        def slowly(there: bool, data: bytes) -> str | None:
            # Of a large value, its last part.
            return proxy.DELAY if there and len(data) < 10_000 else None

        for fault, waits in (
            ("slow: 0.5 s for each answer", WAITS),
            ("slower than the time-out", "?timeout=0.2&away=3"),
        ):
            row = Row(fault)
            with proxy.before(server.url, slowly, 0.5) as (between, url):
                for number in range(seed, seed + times):
                    run(row, url + waits, number, int, HANGS, granules, leaves=3)
                row.injected += sum(between.done.values())
            if waits == WAITS:
                settle(row, server.content)
            else:
                clean(row, server)
            yield row

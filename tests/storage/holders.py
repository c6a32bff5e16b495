"""Processes that hold pieces of an arena, for tests: each runs functions of a test module, one after the other.

holder = HolderProcess()
holder.attach(arena)             also to one arena after the other: starting a process takes long
holder.run(function, *args)      in the process: function(its Holder, its dict of what to remember, *args)
"""

import gc
import socket
import subprocess
import sys
from typing import Any

from wukong.storage.arena import Arena
from wukong.storage.channel import Channel, pair
from wukong.storage.holder import Holder, serve

_TIMEOUT = 60.0


class HolderProcess:
    """A process with a `Holder`; the arena knows it by this object."""

    def __init__(self) -> None:
        ours, theirs = pair()
        ours.settimeout(_TIMEOUT)
        self.line = Channel(ours)
        command = [sys.executable, "-c", f"from tests.storage.holders import main; main({theirs.fileno()})"]
        with theirs:
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])

    def attach(self, arena: Arena) -> "HolderProcess":
        """Let go of everything and begin anew with `arena`."""
        self.arena = arena
        self._answers = serve(arena)
        self.run(None)
        return self

    def run(self, function, *args: Any) -> Any:
        """Run a function there, answer what it asks, and return its result or raise its exception."""
        self.line.send(("run", function, *args))
        while True:
            (kind, *rest), fds = self.line.receive()
            if kind == "result":
                return rest[0]
            if kind == "raised":
                raise rest[0]
            op, *rest = rest
            answer = self._answers[op](self, fds, *rest)
            if kind == "ask":
                self.line.send((answer[0],), answer[1])

    def kill(self) -> None:
        """Kill the process and tell the arena."""
        self.process.kill()
        self.process.wait(_TIMEOUT)
        self.line.close()
        self.arena.gone(self)

    def close(self) -> None:
        """End the process if it has not ended, and wait for it."""
        self.line.close()
        try:
            self.process.wait(_TIMEOUT)
        finally:
            self.process.kill()


def main(fd: int) -> None:
    """Serve one `HolderProcess` until its socket ends."""
    line = Channel(socket.socket(fileno=fd))

    def ask(op, *args, fds=()):
        line.send(("ask", op, *args), fds)
        (reply,), received = line.receive()
        return reply, received

    def tell(op, *args, fds=()):
        line.send(("tell", op, *args), fds)

    holder, memory = Holder(ask, tell), {}
    while True:
        try:
            (_, function, *args), _ = line.receive()
        except EOFError:
            return
        try:
            if function is None:
                holder.close()
                holder, memory = Holder(ask, tell), {}
            result = None if function is None else function(holder, memory, *args)
            gc.collect(0)
            holder.flush()
            line.send(("result", result))
        except Exception as error:
            line.send(("raised", error))
        del args
        gc.collect(0)

"""Processes that hold pieces of an arena, for tests: each runs functions of a test module, one after the other.

holder = HolderProcess()
holder.attach(arena)             also to one arena after the other: starting a process takes long
holder.run(function, *args)      in the process: function(its Holder, its dict of what to remember, *args)
"""

import gc
import os
import pickle
import socket
import subprocess
import sys
from typing import Any

from wukong.storage.arena import Arena
from wukong.storage.holder import Holder, serve

_TIMEOUT = 60.0
_PACKET = 100_000


class Line:
    """Messages with descriptors; what is too long for a packet travels in memory of its own."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, message: tuple, fds=()) -> None:
        body = pickle.dumps(message)
        if len(body) <= _PACKET:
            socket.send_fds(self.sock, [b"\0" + body], fds)
            return
        memory = os.memfd_create("message", os.MFD_CLOEXEC)
        os.pwrite(memory, body, 0)
        socket.send_fds(self.sock, [b"\1"], [memory, *fds])
        os.close(memory)

    def receive(self) -> tuple[tuple, list[int]]:
        packet, fds, flags, _ = socket.recv_fds(self.sock, _PACKET + 1, 253, socket.MSG_CMSG_CLOEXEC)
        if not packet:
            raise EOFError
        assert not flags & socket.MSG_CTRUNC
        if packet[:1] == b"\0":
            return pickle.loads(packet[1:]), fds
        memory, *fds = fds
        body = os.pread(memory, os.fstat(memory).st_size, 0)
        os.close(memory)
        return pickle.loads(body), fds

    def call(self, *message: Any) -> tuple[Any, list[int]]:
        self.send(message)
        return self.receive()


class HolderProcess:
    """A process with a `Holder`; the arena knows it by this object."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_TIMEOUT)
        self.line = Line(ours)
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
        self.line.sock.close()
        self.arena.gone(self)

    def close(self) -> None:
        """End the process if it has not ended, and wait for it."""
        self.line.sock.close()
        try:
            self.process.wait(_TIMEOUT)
        finally:
            self.process.kill()


def main(fd: int) -> None:
    """Serve one `HolderProcess` until its socket ends."""
    line = Line(socket.socket(fileno=fd))

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

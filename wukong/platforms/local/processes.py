"""The processes of a pack, keeper and workers: how they begin, are heard and spoken to, and end. Not their work.

    client --- socket ---> keeper           says who was forked, and how each ended
      +------ socketpair, one each ---> worker, worker, ...

What a worker has sent is heard before its death is: the keeper tells of that once the process is gone.
"""

import contextlib
import os
import select
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from wukong.platforms.local import keeper
from wukong.platforms.local.member import Member
from wukong.platforms.local.pump import Pump
from wukong.storage import channel
from wukong.storage.channel import Channel

#: Messages of one worker that are heard before others are looked at.
_AT_ONCE: Final = 64
#: Seconds until a keeper that should end by itself is killed.
_PATIENCE: Final = 10.0


class Processes:
    """A keeper and workers, connected to a pump: what is called here is called by whoever reads, with no lock held.

    Parameters
    ----------
    pump : Pump
        Reads from them.
    heard : callable
        ``heard(member, message, fds)``: a worker has sent something. If it raises, the worker is killed.
    came : callable
        ``came()``: a worker has been forked.
    died : callable
        ``died(members)``: they are gone, and have been heard to the end. It has to `remove` them.
    start_again : callable
        ``start_again()``: the keeper is gone, and its workers will be.

    Attributes
    ----------
    members : dict of int to Member
        By number.
    """

    def __init__(
        self,
        pump: Pump,
        heard: Callable[[Member, tuple[Any, ...], list[int]], None],
        came: Callable[[], None],
        died: Callable[[Sequence[Member]], None],
        start_again: Callable[[], None],
    ) -> None:
        self.members: dict[int, Member] = {}
        self._pump = pump
        self._heard = heard
        self._came = came
        self._died = died
        self._start_again = start_again
        self._numbers = 0
        self._keeper: Channel
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def keeper_pid(self) -> int:
        """The process number of the keeper."""
        assert self._process is not None
        return self._process.pid

    def start(self, environ: Mapping[str, str]) -> None:
        """Start a keeper, and do not wait for it.

        Raises
        ------
        OSError
            If there is no room for another process.
        """
        ours, its = channel.pair()
        root = str(Path(keeper.__file__).parents[2])
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        with its, contextlib.ExitStack() as failed:
            failed.callback(ours.close)
            self._process = subprocess.Popen(
                [sys.executable, *flags, "-P", "-c", keeper.START, root, str(its.fileno())],
                stdin=subprocess.DEVNULL,
                env=environ,
                pass_fds=[its.fileno()],
                start_new_session=True,
            )
            failed.pop_all()
        self._keeper = Channel(ours)
        known = [name for name in keeper.WELL_KNOWN if name in sys.modules]
        self._keeper.send(("import", sys.path, known))
        ours.setblocking(False)
        self._pump.watch(self._keeper.fileno(), self._read_keeper)

    def fork(self) -> Member:
        """Have a worker forked. What is sent to it before it is there waits in its socket.

        Raises
        ------
        OSError
            If there is no room for its descriptors.
        """
        with contextlib.ExitStack() as failed:
            tickets = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            failed.callback(os.close, tickets)
            ours, its = channel.pair()
            failed.callback(ours.close)
            ours.setblocking(False)
            self._numbers += 1
            member = Member(self._numbers, Channel(ours), tickets)
            with its:
                self._tell_keeper("fork", member.number, [its.fileno(), tickets])
            failed.pop_all()
        self.members[member.number] = member
        self._pump.watch(member.channel.fileno(), lambda events: self._read(member, events))
        return member

    def send(self, member: Member, message: tuple[Any, ...], fds: Sequence[int] = ()) -> None:
        """Send a message to a worker, or kill it if there is no way to; if it is dead, nothing happens."""
        try:
            member.channel.send(message, fds)
            if member.channel.unsent:
                self._pump.watch_writing(member.channel.fileno(), True)
        except ConnectionError:
            # Its end will be read soon.
            pass
        except BaseException as error:
            # No descriptors or memory are left for the message, or an interrupt came: the worker would wait for it.
            self.kill(member)
            if not isinstance(error, OSError):
                raise

    def kill(self, member: Member) -> None:
        """End a worker and what it has started."""
        member.condemned = True
        with contextlib.suppress(OSError):
            self._tell_keeper("kill", member.number)

    def expected(self) -> int | None:
        """Return the process number of the keeper if it is to say something: who came, or who died."""
        members = list(self.members.values())
        asked = any(member.pid is None or member.hung_up or member.condemned for member in members)
        return self.keeper_pid if asked else None

    def kill_keeper(self) -> None:
        """End all of them, so that they start again: the keeper answers no more."""
        assert self._process is not None
        self._process.kill()

    def remove(self, member: Member) -> None:
        """Let go of a worker that has died, but for its tickets."""
        member.gone = True
        del self.members[member.number]
        self._hang_up(member)
        member.channel.close()

    def close(self) -> None:
        """End all of them, if they were ever started, and wait until the keeper has. The pump has to be closed."""
        if self._process is None:
            return
        self._keeper.close()
        for member in self.members.values():
            member.gone = True
            member.channel.close()
        self._wait_for_keeper(self._process)

    def forget(self) -> None:
        """Close every descriptor, in a forked child: the processes end with their owner, whoever else there is."""
        self._keeper.close()
        for member in self.members.values():
            member.channel.close()
            os.close(member.tickets)
        # It is not the child's to wait for.
        self._process.returncode = 0  # type: ignore[union-attr]

    def _tell_keeper(self, op: str, number: int, fds: Sequence[int] = ()) -> None:
        with contextlib.suppress(ConnectionError):  # it is gone, and its workers end with it
            self._keeper.send((op, number), fds)
            if self._keeper.unsent:
                self._pump.watch_writing(self._keeper.fileno(), True)

    def _wait_for_keeper(self, process: "subprocess.Popen[bytes]") -> None:
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                warnings.warn(
                    f"process {process.pid}, which kept the workers of a client, was killed {_PATIENCE:.0f} seconds "
                    f"ago and has not ended: the system does not let go of it (/proc/{process.pid}/stack says where)",
                    ResourceWarning,
                    stacklevel=2,
                )

    def _read(self, member: Member, events: int) -> None:
        """Hear what a worker has sent, as far as it has something to say."""
        if events & select.EPOLLOUT:
            self._flush(member.channel)
        for _ in range(_AT_ONCE):
            if not self._read_one(member) or member.work is None:
                return

    def _read_all(self, member: Member) -> None:
        """Hear what a worker has sent before it died."""
        while self._read_one(member):
            pass

    def _read_one(self, member: Member) -> bool:
        """Hear a message of a worker; return whether there was one."""
        if member.hung_up:
            return False
        try:
            try:
                message, fds = member.channel.receive()
            except BlockingIOError:
                return False
            except EOFError:
                self._hang_up(member)
                return False
            self._heard(member, message, fds)
        except BaseException as error:
            # Something was taken from the socket and not heard, so nobody knows any more what this worker is at.
            self.kill(member)
            if not isinstance(error, Exception):
                raise
            sys.excepthook(type(error), error, error.__traceback__)
        return True

    def _flush(self, channel: Channel) -> None:
        with contextlib.suppress(OSError):  # it is dead; its end will be read soon
            if channel.flush():
                self._pump.watch_writing(channel.fileno(), False)
                # Another thread may have had to leave something meanwhile.
                if channel.unsent:
                    self._pump.watch_writing(channel.fileno(), True)

    def _read_keeper(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush(self._keeper)
        try:
            (op, number, what), _fds = self._keeper.receive()
        except BlockingIOError:
            return
        except (EOFError, OSError):
            self._keeper_ended()
            return
        member = self.members.get(number)
        if member is None:
            return
        if op == "forked":
            member.pid = what
            self._came()
        else:
            member.status, member.peak = what
            self._read_all(member)
            self._died([member])

    def _keeper_ended(self) -> None:
        # Its workers end with it.
        self._pump.unwatch(self._keeper.fileno())
        self._keeper.close()
        assert self._process is not None
        self._wait_for_keeper(self._process)
        members = list(self.members.values())
        for member in members:
            self._read_all(member)
        self._start_again()
        self._died(members)

    def _hang_up(self, member: Member) -> None:
        """Note that a worker's socket has been read to its end; the keeper will say how it ended."""
        member.hung_up = True
        self._pump.unwatch(member.channel.fileno())

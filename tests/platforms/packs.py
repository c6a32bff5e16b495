"""A pack for tests of calls: started once for a module, and a plain way to call and to wait."""

import time

from wukong import serialize
from wukong.platforms.local.calls import Calls
from wukong.platforms.local.pack import Pack

#: Seconds until a test that waits has failed.
PATIENCE = 60.0


class Outcome:
    """What comes of one call."""

    def __init__(self, pack):
        self._pack = pack
        self.sealed = self.error = self.call = None
        self.times = 0

    @property
    def done(self):
        return self.times > 0

    def __call__(self, sealed, error):
        self.sealed, self.error = sealed, error
        self.times += 1

    def get(self):
        assert self._pack.wait(lambda: self.done, PATIENCE), "the call is not done"
        assert self.times == 1
        if self.error is not None:
            raise self.error
        return serialize.loads(self.sealed) if type(self.sealed) is bytes else self._pack.arena.give(self.sealed)


class Started:
    """A pack with calls."""

    def __init__(self, workers=2):
        self.pack = Pack(workers)
        self.calls = Calls(self.pack)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pack.close()

    def submit(self, function, *args, inputs=(), priority=0, **kwargs):
        outcome = Outcome(self.pack)
        outcome.call = self.calls.start(function, args, kwargs, inputs, outcome, priority)
        return outcome

    def run(self, function, *args, **kwargs):
        return self.submit(function, *args, **kwargs).get()


def until(so, what="it"):
    """Wait until something is so, not longer than patience lasts."""
    deadline = time.monotonic() + PATIENCE
    while not so():
        assert time.monotonic() < deadline, f"{what} has not happened"
        time.sleep(0.005)


def is_alive(pid):
    """Whether a process runs; one that only waits to be buried does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False

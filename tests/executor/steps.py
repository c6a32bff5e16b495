"""A tiny job for the executor core: a graph written by hand, the reference store, and executors taken step by step."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wukong.cost import Costs, Estimates
from wukong.executor import effects as fx
from wukong.executor.context import Context
from wukong.executor.core import Executor
from wukong.protocol import messages as m
from wukong.protocol.model import Shard
from wukong.protocol.sharding import home

LEASE = 10.0
#: Any child but the first is cheaper elsewhere; finished work may wait for company for as long as it likes.
COSTS = Costs(round_trip=1e-3, bandwidth=1e9, invoke=1e-9, unknown=1e-9, lease=LEASE)
#: Bytes of a value that does not ride with its record, and of one that does.
LARGE, SMALL = 10_000_000, 100


class Blob:
    """A value of a task, known by whom it was made of."""

    def __init__(self, task: int, nbytes: int, inputs: Mapping[int, "Blob"]) -> None:
        self.task, self.nbytes = task, nbytes
        self.text = f"{task}({','.join(inputs[p].text for p in sorted(inputs))})"


class Written:
    """A schedule as it is written down: the inputs of each task, the outputs, and the sizes of values."""

    def __init__(
        self, inputs: Mapping[int, tuple[int, ...]], outputs: tuple[int, ...], sizes: Mapping[int, int]
    ) -> None:
        self._inputs = dict(inputs)
        self.outputs = outputs
        self.sizes = sizes
        self._children = {task: [c for c in inputs if task in inputs[c]] for task in inputs}
        self.only_once: set[int] = set()

    def loaded(self, task: int) -> bool:  # noqa: ARG002
        return True

    def key(self, task: int) -> str:
        return f"task {task}"

    def kind(self, task: int) -> int:
        return task

    def height(self, task: int) -> int:
        return 1 + max(map(self.height, self._children[task]), default=0)

    def inputs(self, task: int) -> tuple[int, ...]:
        return self._inputs[task]

    def edges(self, task: int) -> list[tuple[int, int]]:
        return [(child, len(self._inputs[child])) for child in self._children[task]]

    def uses(self, task: int) -> list[tuple[int, int]]:
        return [(p, len(self._children[p]) + (p in self.outputs)) for p in self._inputs[task]]

    def is_output(self, task: int) -> bool:
        return task in self.outputs

    def once(self, task: int) -> bool:
        return task in self.only_once


class Tiny:
    """One job: its shards, its value store, and everything its executors did, in order.

    Parameters
    ----------
    inputs : mapping of int to tuple of int
        The inputs of each task.
    sizes : mapping or int
        Bytes of the value of each task.
    """

    def __init__(
        self,
        inputs: Mapping[int, tuple[int, ...]],
        sizes: Mapping[int, int] | int = SMALL,
        outputs: tuple[int, ...] | None = None,
        costs: Costs = COSTS,
        shards: int = 1,
    ) -> None:
        by_task = dict.fromkeys(inputs, sizes) if isinstance(sizes, int) else {**dict.fromkeys(inputs, SMALL), **sizes}
        self.plan = Written(inputs, outputs or (max(inputs),), by_task)
        self.costs = costs
        self.estimates = Estimates(costs.unknown)
        self.shards = [Shard() for _ in range(shards)]
        self.stored: dict[tuple[int, int], Any] = {}
        self.now = 0.0
        self.seconds = 1e-9  # that a task runs
        self.busy = False
        self.log: list[tuple[str, fx.Effect]] = []
        self.alive: dict[int, weakref.ref[Blob]] = {}
        self.finished = False
        for shard in range(shards):
            edges = tuple(m.Edge(t, 1) for t in inputs if not inputs[t] and home(t, shards) == shard)
            root = m.Outcome(m.CLIENT, 0, m.Value(m.STORED, 0), edges)
            self.shards[shard].apply(m.Arrive("client", 1, LEASE, (root,)), self.now)

    def enter(self, name: str, *starts: int, granted: Sequence[m.Grant] | None = None) -> "Walking":
        """Enter an executor; it does nothing yet."""
        return Walking(self, name, starts, granted)

    def of(self, name: str, kind: type, what: Callable[[Any], Any] = lambda effect: effect) -> list[Any]:
        """Return what an executor asked for of one kind, in order."""
        return [what(effect) for who, effect in self.log if who == name and isinstance(effect, kind)]

    def ran(self, name: str) -> list[int]:
        return self.of(name, fx.Run, lambda effect: effect.task)

    def order(self, name: str) -> list[str]:
        """Return what an executor did in words: runs, writes and commits."""
        words = []
        for who, effect in self.log:
            match effect:
                case fx.Run(task) if who == name:
                    words.append(f"run {task}")
                case fx.Put(frames) if who == name:
                    words.append("put " + " ".join(str(frame[0]) for frame in frames))
                case fx.Ask(_, m.Commit() as commit) if who == name:
                    kinds = {m.INLINE: "inline", m.STORED: "stored", m.HELD: "held"}
                    words += [f"commit {o.task} {kinds[o.value.kind]}" for o in commit.outcomes]
                case fx.Pause() if who == name:
                    words.append("pause")
        return words

    def living(self) -> set[int]:
        """Return the tasks whose values are in some executor's memory, or in the records."""
        return {task for task, value in self.alive.items() if value() is not None}

    def pack(self, value: Blob) -> fx.Packed:
        return fx.Packed(value.nbytes <= self.costs.inline_limit, value.nbytes, value)


class Walking:
    """One executor, taken as far as a test wants it to go."""

    def __init__(self, job: Tiny, name: str, starts: tuple[int, ...], granted: Sequence[m.Grant] | None = None) -> None:
        context = Context(
            job.plan, job.costs, job.estimates, job.pack, lambda _, body: body, lambda: job.busy, len(job.shards)
        )
        self.job, self.name = job, name
        self._steps = Executor(name, context, granted).walk(starts)
        self.next: fx.Effect | None = self._steps.send(None)

    def until(self, wanted: Callable[[fx.Effect], bool]) -> "Walking":
        """Carry on until what it asks for next is what is wanted, which is not carried out yet."""
        while self.next is not None and not wanted(self.next):
            self.step()
        assert self.next is not None, f"{self.name} came to its end"
        return self

    def end(self) -> "Walking":
        """Carry on to the end, and let go of all that it had."""
        for _ in range(1000):
            if self.next is None:
                return self
            self.step()
        raise AssertionError(f"{self.name} does not end; last it asked for {self.next}")

    def die(self) -> None:
        """Never go on; its lease has lapsed."""
        self._steps.close()
        self.next = None
        self.job.now += 16 * LEASE

    def step(self) -> None:
        """Carry out what it asks for next."""
        effect, self.next = self.next, None
        assert effect is not None
        if isinstance(effect, fx.Run):
            # The log must not keep values alive.
            self.job.log.append((self.name, fx.Run(effect.task, dict.fromkeys(effect.values))))
        elif isinstance(effect, fx.Put):
            self.job.log.append((self.name, fx.Put([(task, attempt, None) for task, attempt, _ in effect.frames])))
        elif isinstance(effect, fx.Ask) and isinstance(effect.request, m.Commit | m.Arrive):
            bare = tuple(o._replace(value=o.value._replace(body=None)) for o in effect.request.outcomes)
            self.job.log.append((self.name, fx.Ask(effect.shard, effect.request._replace(outcomes=bare))))
        else:
            self.job.log.append((self.name, effect))
        answer = self._carry_out(effect)
        effect = None
        try:
            self.next, answer = self._steps.send(answer), None
        except StopIteration:
            self.next = None

    def _carry_out(self, effect: fx.Effect) -> Any:
        job = self.job
        match effect:
            case fx.Ask(shard, request):
                reply = job.shards[shard].apply(request, job.now)
                # Nobody asks twice here, and a kept answer would keep its values.
                executor = job.shards[shard].executors.get(self.name)
                if executor is not None:
                    executor.reply = m.Reply(m.RUNNING, b"", ())
                return reply
            case fx.Run(task, values):
                value = Blob(task, job.plan.sizes[task], values)
                job.alive[task] = weakref.ref(value)
                return fx.Ran(value, job.seconds)
            case fx.Fetch(names):
                return [job.stored.get(name, fx.LACKING) for name in names]
            case fx.Put(frames):
                job.stored.update(((task, attempt), body) for task, attempt, body in frames)
            case fx.Drop(names):
                for name in names:
                    job.stored.pop(name, None)
            case fx.Pause(seconds):
                job.now += seconds
                return job.busy
            case fx.Finish():
                job.finished = True
        return None

"""What a client does with calls and values: submit, map, gather, scatter, cancel. Graphs are in `client`."""

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

from wukong.errors import ConfigError
from wukong.futures import Future
from wukong.platforms.local.admission import context_of, within
from wukong.platforms.local.packs import in_worker
from wukong.scheduler.annotations import Annotation, agreed, read
from wukong.scheduler.course import Running
from wukong.scheduler.dask.collections import tokenize
from wukong.scheduler.futures.batches import as_one
from wukong.scheduler.futures.call import Call, lift
from wukong.scheduler.futures.containers import SEVERAL, collect, futures_of, values
from wukong.scheduler.futures.engine import Engine
from wukong.scheduler.futures.lanes import Turn
from wukong.scheduler.tries import Retry, is_once

if TYPE_CHECKING:
    from wukong.client.executor import ClientExecutor

_names = count()


class Submitting:
    """The calls of a client.

    Attributes
    ----------
    asynchronous : bool
        Whether what waits is to be awaited.
    """

    asynchronous: bool
    _engine: Engine

    # --- calls --------------------------------------------------------------------------------------------------------

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,
        key: Any = None,
        pure: bool = False,
        retries: int | Retry = 0,
        once: bool = False,
        priority: float = 0,
        workers: str | Iterable[str] | None = None,
        memory: int | str | None = None,
        allow_other_workers: bool = False,
        **kwargs: Any,
    ) -> Future:
        """Call a function in the background.

        Parameters
        ----------
        function : callable
        *args, **kwargs
            Futures among them, and in tuples, lists, sets and dictionaries among them, stand for their values.
        key : key, optional
            Its name. If somebody holds a future of this name, that one is returned and nothing runs.
        pure : bool
            Whether equal calls may share one: their key is made of function and arguments then.
        retries : int or Retry
            How often it may run again after it raised: after a tenth of a second, then after twice as long, and so on;
            or what `wukong.retry` returns.
        once : bool
            Whether it may never run twice; see `wukong.once`.
        priority : float
            Higher ones run first.
        workers : str, or several, optional
            Where it may run: ``"threads"``, or ``"client"``, which is the same, or ``"processes"``.
        memory : int or str, optional
            Bytes that it needs at once, such as ``"2 GB"``: it begins when all that run need no more than the limit.
        allow_other_workers : bool
            Whether, where there are no such workers, others will do.

        Returns
        -------
        Future

        Raises
        ------
        ClientClosed
        AnnotationError
            If there are no such workers, or never so much memory.
        """
        if not callable(function):
            raise TypeError(f"submit takes a function and its arguments, but {function!r} cannot be called")
        name = self._key(function, args, kwargs, key, pure)
        if (key is not None or pure) and (known := self._held(name)) is not None:
            return known
        need, lane = self._place(name, memory, workers, allow_other_workers)
        call = self._call(name, function, args, kwargs, priority, retries, need, once)
        self._engine.submit([call], lane)
        return Future(call)

    def map(
        self,
        function: Callable[..., Any],
        *iterables: Iterable[Any],
        key: Any = None,
        pure: bool = False,
        retries: int | Retry = 0,
        once: bool = False,
        priority: float = 0,
        batch_size: int | None = None,
        workers: str | Iterable[str] | None = None,
        memory: int | str | None = None,
        allow_other_workers: bool = False,
        **kwargs: Any,
    ) -> list[Future]:
        """Call a function in the background on the items of iterables, as the builtin `map` does.

        Parameters
        ----------
        function : callable
        *iterables : iterables
            The shortest one ends it.
        key : str or list of keys, optional
            What the names begin with, or all of them.
        pure, retries, once, priority
            As in `submit`.
        batch_size : int, optional
            So many calls run one after the other as one, which pays where they are very short.
        workers, memory, allow_other_workers
            As in `submit`, of each call.
        **kwargs
            For each call.

        Returns
        -------
        list of Future
        """
        if not callable(function):
            raise TypeError(f"map takes a function and iterables, but {function!r} cannot be called")
        rows = list(zip(*iterables, strict=False))
        if isinstance(key, list) and len(key) != len(rows):
            raise ConfigError(f"map has {len(rows)} calls, but {len(key)} keys are given; give one for each")
        names = key if isinstance(key, list) else None
        need, lane = self._place(getattr(function, "__name__", function), memory, workers, allow_other_workers)
        calls: list[Call] = []
        futures: list[Future] = []
        turn = Turn()
        for index, row in enumerate(rows):
            given = names[index] if names else None if key is None else f"{key}-{index}"
            name = self._key(function, row, kwargs, given, pure)
            future = self._held(name) if pure or given is not None else None
            if future is None:
                calls.append(self._call(name, function, row, kwargs, priority, retries, need, once))
                future = Future(calls[-1])
            futures.append(future)
        if batch_size is None or batch_size < 2:
            self._engine.submit(calls, lane, turn)
        else:
            for start in range(0, len(calls), batch_size):
                as_one(calls[start : start + batch_size], turn, lane)
        return futures

    def _key(self, function: Any, args: Any, kwargs: Any, key: Any, pure: bool) -> Any:
        if key is not None:
            return key
        name = getattr(function, "__name__", None) or type(function).__name__
        return f"{name}-{tokenize(function, args, kwargs)}" if pure else f"{name}-{next(_names)}"

    def _held(self, key: Any) -> Future | None:
        call = self._engine.calls.get(key)
        return None if call is None else Future(call)

    def _place(self, name: Any, memory: Any, workers: Any, others: bool) -> tuple[int, Any]:
        """Return how many bytes a call needs, and the lane that it has to run in, if there is one."""
        if memory is None and workers is None:
            return 0, None
        engine, note = self._engine, read(name, memory, workers, others)
        # In a worker process there are no others.
        if in_worker():
            return 0, None
        note = agreed({name: note}, engine.granules, engine.admission.limit).get(name, Annotation())
        lane = None if note.workers is None else engine.threads if note.workers == "threads" else engine.processes
        return 0 if within() else note.memory, lane

    def _call(
        self,
        key: Any,
        function: Any,
        args: Any,
        kwargs: Any,
        priority: float,
        retries: int | Retry,
        need: int,
        once: bool,
    ) -> Call:
        once = once or is_once(function)
        if once and retries:
            raise ConfigError(f"the call {key!r} is to run once, and is to be retried; take one of the two away")
        inputs: dict[Call, int] = {}
        args = lift(args, inputs)
        if kwargs:
            kwargs = lift(kwargs, inputs)
        return Call(
            self._engine,
            key,
            function,
            args,
            kwargs,
            tuple(inputs),
            priority=priority,
            retries=retries,
            once=once,
            need=need,
            context=context_of(need),
        )

    # --- values -------------------------------------------------------------------------------------------------------

    def gather(self, futures: Any, errors: str = "raise", asynchronous: bool | None = None) -> Any:
        """Return the values of futures, alone or anywhere in lists, tuples, sets and dictionaries.

        Parameters
        ----------
        futures : Future, or containers, or an iterator of them
        errors : str
            ``raise`` raises the first error; ``skip`` leaves out what has failed.
        asynchronous : bool, optional
            Whether to return an awaitable; what the client was made with if None.

        Raises
        ------
        BaseException
            What a call raised.
        """
        if errors not in ("raise", "skip"):
            raise ConfigError(f"gather takes errors='raise' or errors='skip', not {errors!r}")
        if isinstance(futures, Iterator):
            futures = list(futures)
        if self.asynchronous if asynchronous is None else asynchronous:
            return self._gather(futures, errors)
        found: dict[Future, None] = {}
        collect(futures, found)
        self._engine.wait([future.call for future in found], failing=errors == "raise")
        if errors == "raise":
            for future in found:
                if future.done():
                    future.result()
        return values(futures, errors)

    async def _gather(self, futures: Any, errors: str) -> Any:
        from asyncio import gather

        found: dict[Future, None] = {}
        collect(futures, found)
        await gather(*found, return_exceptions=errors == "skip")
        return values(futures, errors)

    def scatter(self, data: Any, broadcast: bool = False, hash: bool = False) -> Any:  # noqa: ARG002 - as in Dask
        """Return futures of values: of a list, tuple, set or dictionary one for each item; else one.

        Parameters
        ----------
        data : object
        broadcast : bool
            Makes no difference: workers of one machine share what they read.
        hash : bool
            Whether equal values get equal keys.
        """

        def give(value: Any, key: Any = None) -> Future:
            name = type(value).__name__
            if key is None:
                key = f"{name}-{tokenize(value)}" if hash else f"{name}-{next(_names)}"
            return Future(self._engine.give(key, value))

        if type(data) is dict:
            return {key: give(value, key) for key, value in data.items()}
        return type(data)(map(give, data)) if type(data) in SEVERAL else give(data)

    def cancel(self, futures: Any, force: bool = False) -> list[Running]:
        """Cancel futures, and those that need them; return at once.

        What has not begun never will, and of a graph nothing more begins once none of its futures is wanted. The future
        of a call that runs is cancelled, and what it gives is dropped; the call itself goes on to its end, unless it is
        in a process and `force` is given. So do the tasks of a graph that run.

        Parameters
        ----------
        futures : Future, or containers, or persisted collections of them
        force : bool
            Whether to kill the processes that run their calls.

        Returns
        -------
        list of Running
            What may still run, and where: pairs of a key and a thread or a worker process.
        """
        calls = [future.call for future in futures_of(futures)]
        running = [call for call in calls if not call.done] if force else []
        left = self._engine.cancel(calls).left
        killed = {call.key for call in running if self._engine.processes.kill(call)}
        return [one for one in left if one.key not in killed]

    def executor(self, priority: float = 0) -> "ClientExecutor":
        """Return the client as a `concurrent.futures.Executor`, whose calls have this priority."""
        from wukong.client.executor import ClientExecutor

        return ClientExecutor(self._engine, priority)

"""The client: graphs and calls in the background, and their futures. Where they run is decided below it."""

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, Self

from dask import config as dask_config

from wukong import config
from wukong.client import current
from wukong.client.functions import get
from wukong.client.jobs import JobAt, attach_job, given, jobs, recreate, submit_job
from wukong.client.submitting import Submitting
from wukong.errors import ConfigError
from wukong.events import Run
from wukong.futures import Future
from wukong.platforms.local.admission import Admission
from wukong.platforms.local.packs import in_worker
from wukong.platforms.local.processors import workers_here
from wukong.scheduler.course import Course, Running, may_still_run, present
from wukong.scheduler.dask.collections import (
    finalised,
    futures_read,
    is_dask_collection,
    persisted,
    traversed,
)
from wukong.scheduler.dask.graphs import flatten, merge
from wukong.scheduler.futures.call import check_numbers
from wukong.scheduler.futures.containers import SEVERAL
from wukong.scheduler.futures.engine import Engine
from wukong.scheduler.tries import Retry
from wukong.sizes import parse_bytes

if TYPE_CHECKING:
    from wukong.platforms.local.pack import Pack

_DEFAULTS = config.Options()


class Client(Submitting):
    """Runs Dask graphs and calls, with futures. One may be used by many threads at once.

    While it is open, Dask computes with it: ``x.compute()``. What waits inside of a task for other tasks gives up its
    place meanwhile, so tasks may compute and submit at any depth.

    Parameters
    ----------
    platform, store, workers, granules
        As in `wukong.config.Options`.
    memory_limit : int or str, optional
        Bytes, or such as ``"4GB"``, that values which processes share may have in memory; what is beyond goes to disk.
        Six tenths of what this process may use if None.
        It is also what annotated tasks at work may need together; all that this process may use if None.
    attempts, stragglers
        As in `wukong.config.Options`.
    set_as_default : bool
        Whether Dask is to compute with it, and `wukong.get_client` to find it.
    asynchronous : bool
        Whether `gather` and `close` are to be awaited; so it is after ``async with``.

    Raises
    ------
    ConfigError
        If an option is not allowed.

    Examples
    --------
    >>> with Client() as client:
    ...     client.submit(pow, 2, 10).result()
    1024
    """

    def __init__(
        self,
        platform: str = "local",
        store: str | None = None,
        workers: int | None = None,
        granules: str = "auto",
        memory_limit: int | str | None = None,
        *,
        attempts: int | None = None,
        stragglers: bool | None = None,
        set_as_default: bool = True,
        asynchronous: bool = False,
    ) -> None:
        given = {"platform": platform, "store": store, "workers": workers, "granules": granules}
        given = {name: v for name, v in given.items() if v != getattr(_DEFAULTS, name)}
        again = {"attempts": attempts, "stragglers": stragglers}
        self._options = config.resolve({**given, **{name: v for name, v in again.items() if v is not None}})
        self.asynchronous = asynchronous
        # A worker is one of many: what it starts itself runs in it.
        inline = self._options.granules == "inline" or in_worker()
        self.workers: int = (
            1 if inline else self._options.workers or dask_config.get("num_workers", None) or workers_here()
        )
        limit = parse_bytes(memory_limit)
        runs_in = "threads" if inline else self._options.granules
        # Clients without a limit share the memory of the machine.
        admission = None if limit is None else Admission(limit)
        self._engine = Engine(
            self.workers, partial(_new_pack, self.workers, limit), runs_in, admission, self._options.attempts
        )
        self._engine.owner = weakref.ref(self)
        if runs_in == "processes":
            # It is ready sooner if it starts now.
            self._engine.processes.pack()
        self._latest: Run | None = None
        self._finalizer = weakref.finalize(self, _close_elsewhere, self._engine)
        self._finalizer.atexit = False
        if set_as_default:
            current.enter(self)

    # --- graphs -------------------------------------------------------------------------------------------------------

    def get(self, dsk: Any, keys: Any, **kwargs: Any) -> Any:
        """Return the values of keys of a graph, as `wukong.get` does; futures in it stand for their values."""
        self._engine.check()
        nodes = merge(dsk)
        cache = dict(kwargs.pop("cache", None) or ())
        if self._engine.calls:
            read = futures_read(nodes, flatten(keys), self._engine.calls)
            self._engine.wait(read.values(), failing=True)
            for key, call in read.items():
                future = Future(call)
                cache[key] = given(call) if future.exception() is None else future.result()
        options = {**kwargs, **self._given(kwargs), "packs": self._engine.processes.find}
        options["admission"] = self._engine.admission
        options["course"] = course = Course(present.get())
        self._engine.follow(course)
        results = get(nodes, keys, **options, cache=cache or None)
        self._ran()
        return results

    def compute(
        self,
        collections: Any,
        sync: bool = False,
        optimize_graph: bool = True,
        *,
        priority: float = 0,
        retries: int | Retry = 0,
        traverse: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Compute collections in the background.

        Collections that are given together are computed together: what they share once, and they fail together.

        Parameters
        ----------
        collections : collection, or a list, tuple, set or dict of them
            What is no collection stays as it is.
        sync : bool
            Whether to wait and return values instead.
        optimize_graph : bool
            As in Dask.
        priority : float
            Higher ones begin first.
        retries : int or Retry
            How often a task may run again after it raised; see `submit`.
        traverse : bool
            Whether to look for collections in containers inside of `collections`.
        name : str, optional
            Of the job, for `attach`; one is made up if None.
        **kwargs
            Options of `wukong.config.Options`, for this graph alone; others concern other schedulers and are passed
            over.

        Returns
        -------
        Future, or futures in the shape of `collections`
        """
        shape = collections
        items = list(shape.values()) if type(shape) is dict else list(shape) if type(shape) in SEVERAL else [shape]
        if traverse and type(shape) in (dict, *SEVERAL):
            items = [traversed(item) for item in items]
        variables = [item for item in items if is_dask_collection(item)]
        found: list[Any] = []
        if variables:
            options = self._given(kwargs)
            graph, keys = finalised(variables, optimize_graph)
            futures = self._job(graph, keys, priority, retries, options, name)
            found = [futures[key] for key in keys]
        results = iter(found)
        items = [next(results) if is_dask_collection(item) else item for item in items]
        if sync:
            items = self.gather(items, asynchronous=False)
        if type(shape) is dict:
            return dict(zip(shape, items, strict=True))
        return type(shape)(items) if type(shape) in SEVERAL else items[0]

    def persist(
        self,
        collections: Any,
        optimize_graph: bool = True,
        *,
        priority: float = 0,
        retries: int | Retry = 0,
        name: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Compute collections in the background and return them as collections of futures.

        Parameters
        ----------
        collections : collection, or a list or tuple of them
        optimize_graph, priority, retries, name, **kwargs
            As in `compute`.
        """
        items = list(collections) if type(collections) in SEVERAL else [collections]
        if not items:
            return collections
        options = self._given(kwargs)
        graph, keys, rebuild = persisted(items, optimize_graph)
        built = rebuild(self._job(graph, keys, priority, retries, options, name))
        return type(collections)(built) if type(collections) in SEVERAL else built[0]

    def _job(
        self,
        graph: Any,
        keys: list[Any],
        priority: float,
        retries: int | Retry,
        options: dict[str, Any],
        name: str | None,
    ) -> dict[Any, Future]:
        """Have a graph computed in the background and return a future for each key."""
        check_numbers(priority, retries)
        job = submit_job(self._engine, graph, keys, options, priority, retries, weakref.WeakMethod(self._ran), name)
        return {key: Future(call) for key, call in job.items()}

    def _given(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of a graph: those of the client, but for those given with it."""
        config.refuse_misspelled(kwargs)
        ours = {name: kwargs[name] for name in config.NAMES if name in kwargs}
        config.resolve(ours)
        return {**{name: getattr(self._options, name) for name in config.NAMES}, **ours}

    def _ran(self, figures: Run | None = None) -> None:
        from wukong.client.functions import last_run

        self._latest = figures or last_run()

    def jobs(self) -> list[JobAt]:
        """Return the graphs in the background that are not done."""
        return [job for job, _ in jobs(self._engine).values()]

    def attach(self, name: str) -> dict[Any, Future]:
        """Return futures of what a job is to give, by key, though nobody may have kept those it was begun with.

        It may be one of this client, or one that another client has begun by `compute` or `persist` in the same store,
        and has died over. Then this client goes on with it, with its own workers: what is stored is not run again.

        Parameters
        ----------
        name : str
            As `jobs`, or `Future.job`, tells it.

        Raises
        ------
        AttachUnsupported
            If there is no such job; if its client lives; or if the client has no store by its URL.
        StoreForgot
            If the store has lost parts of its plan.
        """
        self._engine.check()
        found = jobs(self._engine).get(name)
        if found is not None:
            return {call.key: Future(call) for call in found[1]}
        calls = attach_job(self._engine, name, self._given({}), weakref.WeakMethod(self._ran))
        return {key: Future(call) for key, call in calls.items()}

    # --- what came of it ----------------------------------------------------------------------------------------------

    def recreate_error_locally(self, future: Future) -> None:
        """Run what failed again, here and in this thread, as for a debugger.

        Of a call that failed because of another, that other one is run; of a graph, the task that failed, with its
        inputs computed anew.

        Raises
        ------
        BaseException
            What it raises.
        ConfigError
            If the future has not failed.
        """
        if future.exception() is None or future.cancelled():
            raise ConfigError(f"the future {future.key!r} is {future.status}; only one that failed can be run again")
        recreate(future.call.way()[0])

    @property
    def last_run(self) -> Run | None:
        """Figures of the graph computed last, or None."""
        return self._latest

    @property
    def reasons(self) -> dict[str, str]:
        """With ``granules="auto"``, where functions that were submitted run by now, and why."""
        auto = self._engine.auto
        return {} if auto is None else dict(auto.reasons)

    # --- the client itself --------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether it is closed, or of no use because this process was forked."""
        return bool(self._engine.closed)

    def close(self) -> Any:
        """Cancel what has not begun, and let go of threads and workers. What runs in processes ends with them.

        Returns
        -------
        list of Running, or None
            What may still run in threads, as `cancel` tells it; also in the log of ``wukong``, at ``INFO``. None if
            nothing does.
        """
        if self.asynchronous:
            return _in_thread(self._close)
        return self._close()

    def _close(self) -> list[Running] | None:
        self._finalizer.detach()
        left = self._engine.close()
        current.leave(self)
        if left:
            from logging import getLogger

            getLogger("wukong").info("a client was closed: %s", may_still_run(left))
        # A notebook whose last line closes the client shows nothing if there is nothing to tell.
        return left or None

    def __enter__(self) -> Self:
        self._engine.check()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    async def __aenter__(self) -> Self:
        self._engine.check()
        self.asynchronous = True
        return self

    async def __aexit__(self, *_: object) -> None:
        await _in_thread(self._close)

    def dask_settings(self) -> dict[str, Any]:
        """Return what Dask's configuration has to have while this client is current."""
        settings: dict[str, Any] = {"scheduler": self.get}
        if self._options.store is not None or self._options.granules in ("auto", "processes"):
            settings["dataframe.shuffle.method"] = "tasks"
        return settings

    def __repr__(self) -> str:
        options = self._options
        state = "closed" if self.closed else f"{len(self._engine.undone)} calls not done"
        where = "" if options.store is None else ", with a store"
        return f"<Client: {options.platform}, {self.workers} workers, granules: {options.granules}{where}; {state}>"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<code>{escape(repr(self))}</code>"

    def __reduce__(self) -> Any:
        raise TypeError("a client belongs to its process; within a task, wukong.get_client() finds one")


def _new_pack(workers: int, memory_limit: int | None) -> "Pack":
    from wukong.platforms.local.pack import Pack

    return Pack(workers, memory_limit)


async def _in_thread(function: Callable[[], Any]) -> Any:
    from asyncio import to_thread

    return await to_thread(function)


def _close_elsewhere(engine: Engine) -> None:
    """Close the engine of a client that was collected: in a thread, since anybody's lock may be held here."""
    if engine.closed:
        return
    try:
        Thread(target=engine.close, name="wukong-close", daemon=True).start()
    except RuntimeError:  # the interpreter is on its way out, and closes what is left itself
        return

"""The arena between real processes: who sees what, when a block is used again, and what is left."""

import gc
import os
import pickle
import random
import resource
import tempfile
import threading
from contextlib import suppress

import dask
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.storage.holders import HolderProcess
from wukong import serialize
from wukong.errors import MemoryLimitReached
from wukong.storage.arena import INLINE, Arena
from wukong.storage.blocks import Piece
from wukong.storage.pool import capacity

MB = 1 << 20


# What holders do in their processes


def seal(holder, _, value):
    return holder.seal(value)


def seal_array(holder, _, number, nbytes):
    return holder.seal(np.full(nbytes // 8, number))


def put_array(holder, _, name, number, nbytes):
    holder.put("job", name, serialize.dumps(np.full(nbytes // 8, number)))


def put_frame(holder, _, name, frame):
    holder.put("job", name, frame)


def keep(holder, memory, name):
    (frame,) = holder.get("job", [name])
    memory[name] = serialize.loads(frame)


def scribble(_, memory, name):
    memory[name][:] = -1


def seen(_, memory, name):
    return set(np.unique(memory[name]))


def let_go(_, memory, *names):
    for name in names or list(memory):
        memory.pop(name, None)


def fork_and_let_go(_, memory, name):
    """Leave a child behind that has everything mapped, and let go of it here."""
    reading, writing = os.pipe()
    if not os.fork():
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    memory["the child's"] = writing
    del memory[name]


def close_holder(holder, _):
    holder.close()


def end_child(_, memory):
    os.close(memory.pop("the child's"))
    os.wait()


def in_dev_shm(*_):
    """What this process has open or mapped there."""
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    with open("/proc/self/maps") as lines:
        return [text for text in (*links, *lines) if "/dev/shm" in text]


def descriptors(*_):
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def maps(*_):
    with open("/proc/self/maps") as lines:
        return [line for line in lines if "memfd:wukong" in line or "(deleted)" in line]


_PROCESSES: list[HolderProcess] = []


@pytest.fixture(scope="module", autouse=True)
def _end_processes():
    yield
    while _PROCESSES:
        _PROCESSES.pop().close()


def attached(arena, count):
    """Processes, begun anew with `arena`."""
    _PROCESSES[:] = [process for process in _PROCESSES if process.process.poll() is None]
    _PROCESSES.extend(HolderProcess() for _ in range(count - len(_PROCESSES)))
    return [process.attach(arena) for process in _PROCESSES[:count]]


@pytest.fixture
def arena():
    arena = Arena(512 * MB)
    yield arena
    arena.close()


@pytest.fixture
def holders(arena):
    return attached(arena, 2)


def room(nbytes):
    """Bytes of the block that an array of `nbytes` gets to itself."""
    return capacity(nbytes + 200)


def test_an_array_gets_from_one_process_to_another_and_to_the_client(arena, holders):
    one, two = holders
    one.run(put_array, "x", 7, 3 * MB)
    two.run(keep, "x")
    assert two.run(seen, "x") == {7}
    assert set(np.unique(arena.unseal(arena.find("job", ["x"])[0]))) == {7}


def test_what_a_reader_writes_is_its_own(arena, holders):
    one, two = holders
    one.run(put_array, "x", 7, 3 * MB)
    one.run(keep, "x")
    two.run(keep, "x")
    two.run(scribble, "x")
    mine = arena.unseal(arena.find("job", ["x"])[0])
    mine[:] = 9
    assert (one.run(seen, "x"), two.run(seen, "x")) == ({7}, {-1})


def test_a_block_is_used_again_when_its_last_reader_has_let_go_and_not_before(arena, holders):
    one, two = holders
    one.run(put_array, "x", 1, 3 * MB)
    two.run(keep, "x")
    arena.delete("job", ["x"])
    one.run(put_array, "y", 2, 3 * MB)
    assert two.run(seen, "x") == {1}
    assert arena.figures()[4:6] == (2, 0)
    two.run(let_go, "x")
    one.run(put_array, "z", 3, 3 * MB)
    assert arena.figures()[4:6] == (2, 1)


def test_an_extent_that_nobody_has_any_more_frees_its_block(arena, holders):
    sealed = arena.take(holders[0], holders[0].run(seal_array, 1, 3 * MB))
    assert arena.figures().unused == 0
    del sealed
    assert arena.figures().unused == room(3 * MB)


def test_a_holder_gets_back_the_block_it_has_written_before(arena, holders):
    one, two = holders
    wires = [holder.run(seal_array, 1, 3 * MB) for holder in holders]
    for holder, wire in zip(holders, wires, strict=True):
        arena.take(holder, wire)
    assert [holder.run(seal_array, 1, 3 * MB).block for holder in (one, two)] == [wire.block for wire in wires]


def test_values_of_a_holder_that_was_killed_can_be_read_and_what_it_had_mapped_is_never_used_again(arena, holders):
    one, two = holders
    one.run(put_array, "x", 1, 3 * MB)
    two.run(put_array, "y", 2, 3 * MB)
    one.run(keep, "y")
    one.kill()
    arena.delete("job", ["y"])
    assert arena.figures()[2:4] == (0, 1)
    two.run(keep, "x")
    assert two.run(seen, "x") == {1}


def test_what_a_dead_holder_was_writing_is_dropped(arena, holders):
    wire = holders[0].run(seal_array, 1, 3 * MB)
    assert isinstance(wire, Piece)
    holders[0].kill()
    assert arena.figures()[:4] == (0, 0, 0, 0)


def test_a_block_that_a_child_of_a_holder_may_see_is_never_used_again(arena, holders):
    one, two = holders
    one.run(put_array, "x", 1, 3 * MB)
    two.run(keep, "x")
    two.run(fork_and_let_go, "x")
    arena.delete("job", ["x"])
    assert arena.figures().blocks == 0
    one.run(put_array, "y", 2, 3 * MB)
    assert arena.figures()[4:6] == (2, 0)
    two.run(end_child)


def test_small_values_share_a_block_and_it_outlives_each_of_them(arena, holders):
    one, two = holders
    for i in range(60):
        one.run(put_array, str(i), i, 100_000)
    assert arena.figures().blocks == 2
    two.run(keep, "5")
    arena.delete("job", [str(i) for i in range(60)])
    for i in range(60, 200):
        one.run(put_array, str(i), i, 100_000)
    assert two.run(seen, "5") == {5}


def test_values_written_before_a_new_shared_block_was_begun_are_still_there_when_they_are_handed_in(arena, holders):
    one, _ = holders
    wires = [one.run(seal_array, i, 400_000) for i in range(25)]
    assert len({wire.block for wire in wires}) > 2
    values = [arena.unseal(arena.take(one, wire)) for wire in wires]
    assert [set(np.unique(value)) for value in values] == [{i} for i in range(25)]
    del values
    assert arena.figures().blocks - arena.figures().unused // capacity(4 * MB) == 1


def test_a_value_that_was_given_owns_its_memory(arena, holders):
    one, _ = holders
    one.run(put_array, "x", 1, 3 * MB)
    value = arena.give(arena.find("job", ["x"])[0])
    assert arena.figures()[:3] == (0, 0, 0)
    arena.clear("job")
    for i in range(5):
        one.run(put_array, "y", i, 3 * MB)
        arena.clear("job")
    value[0] = 5
    assert set(np.unique(value)) == {1, 5}
    blocks = arena.figures().blocks
    del value
    assert arena.figures().blocks == blocks - 1


def test_a_given_value_and_one_mapped_stay_when_the_arena_is_closed():
    arena = Arena(100 * MB)
    given, mapped = (arena.give(arena.seal(np.ones(MB))), arena.unseal(arena.seal(np.ones(MB))))
    arena.close()
    assert given.sum() == mapped.sum() == MB


def test_beyond_the_memory_limit_blocks_are_on_disk_and_files_have_no_name(tmp_path):
    arena = Arena(10 * MB, str(tmp_path))
    values = [arena.seal(np.full(MB // 2, float(i))) for i in range(5)]
    figures = arena.figures()
    assert figures.in_memory <= 10 * MB
    assert (figures.spilled, figures.on_disk) == (3, 3 * room(4 * MB))
    assert "over the limit, 10485760" in figures.why_on_disk
    assert os.listdir(tmp_path) == []
    assert [arena.unseal(value)[-1] for value in values] == [0, 1, 2, 3, 4]
    values.clear()
    assert arena.figures().on_disk == 0
    arena.close()


def test_blocks_on_disk_are_born_where_dask_says_at_the_time_unless_the_arena_was_told(tmp_path):
    def born(arena):
        return os.path.dirname(os.readlink(f"/proc/self/fd/{arena.reserve(MB).fd}"))

    arena, told = Arena(0), Arena(0, str(tmp_path))
    (tmp_path / "dask").mkdir()
    with dask.config.set(temporary_directory=str(tmp_path / "dask")):
        assert (born(arena), born(told)) == (str(tmp_path / "dask"), str(tmp_path))
    assert born(arena) == tempfile.gettempdir()
    with (
        dask.config.set(temporary_directory=str(tmp_path / "none")),
        pytest.raises(MemoryLimitReached, match=f"{tmp_path}/none, and the system refused another: No such file"),
    ):
        born(arena)
    arena.close()
    told.close()


def test_blocks_that_are_not_in_use_make_room_before_anything_goes_to_disk(tmp_path):
    arena = Arena(40 * MB, str(tmp_path))
    for size in (9, 17, 9, 33, 30):
        arena.seal(np.zeros(size * MB // 8))
    assert arena.figures().spilled == 0
    arena.close()


def test_unused_blocks_are_kept_up_to_a_quarter_of_the_limit():
    arena = Arena(100 * MB)
    sealed = [arena.seal(np.zeros(MB)) for _ in range(5)]
    sealed.clear()
    assert arena.figures().unused == 2 * room(8 * MB)
    arena.close()


def test_beyond_the_disk_there_is_an_error_with_figures_and_a_remedy_here_and_in_a_holder(tmp_path):
    arena = Arena(2 * MB, str(tmp_path), disk_limit=5 * MB)
    holder = attached(arena, 1)[0]
    kept = arena.seal(np.zeros(MB // 2))
    with pytest.raises(
        MemoryLimitReached, match=r"4000\d\d\d bytes: 0 bytes are in memory \(limit 2097152\) and \d+ on"
    ):
        arena.seal(np.zeros(500_000))
    with pytest.raises(MemoryLimitReached, match=r"limit on disk is 5242880.*raise memory_limit"):
        holder.run(seal_array, 1, 4 * MB)
    del kept
    holder.run(seal_array, 1, 4 * MB)
    arena.close()


def test_a_full_disk_is_an_error_before_anything_is_written(tmp_path):
    arena = Arena(0, str(tmp_path), disk_limit=1 << 62)
    with pytest.raises(MemoryLimitReached, match="the system refused another"):
        arena.reserve(1 << 60)
    assert arena.figures()[:4] == (0, 0, 0, 0)
    arena.close()


def test_small_values_count_and_go_to_disk_too(tmp_path):
    arena = Arena(10 * INLINE, str(tmp_path))
    for i in range(30):
        arena.put("job", str(i), bytes([i]) * INLINE)
    figures = arena.figures()
    assert figures.in_memory == 10 * INLINE
    assert figures.on_disk > 0
    assert [bytes(value[:1]) for value in arena.get("job", [str(i) for i in range(30)])] == [
        b"%c" % i for i in range(30)
    ]
    arena.clear("job")
    assert arena.figures().in_memory == 0
    arena.close()


def test_a_small_value_without_room_is_an_error_where_it_is_read(tmp_path):
    arena = Arena(INLINE, str(tmp_path), disk_limit=0)
    holder = attached(arena, 1)[0]
    holder.run(put_frame, "x", bytes(40_000))
    holder.run(put_frame, "y", bytes(40_000))
    assert arena.find("job", ["x"]) == [bytes(40_000)]
    with pytest.raises(MemoryLimitReached, match="no room"):
        arena.find("job", ["y"])
    with pytest.raises(MemoryLimitReached, match="no room"):
        holder.run(keep, "y")
    arena.close()


def test_memory_of_dropped_blocks_goes_at_once_though_who_wrote_them_has_them_mapped():
    arena = Arena(400 * MB)
    holder = attached(arena, 1)[0]
    for _ in range(4):
        arena.take(holder, holder.run(seal_array, 1, 90 * MB))
    assert any("memfd:wukong" in line for line in holder.run(maps))
    (block,) = arena._pool.blocks.values()
    memory = os.dup(block.fd)
    assert os.fstat(memory).st_blocks * 512 >= 90 * MB
    arena._pool.shed()
    assert os.fstat(memory).st_blocks == 0
    os.close(memory)
    arena.take(holder, holder.run(seal_array, 1, 8 * MB))
    assert holder.run(maps) == []
    arena.close()


def test_nothing_has_a_name_and_descriptors_are_as_many_as_before():
    attached(Arena(), 2)  # a process that is started has a descriptor here, which is no block
    before = (in_dev_shm(), descriptors(), maps())
    arena = Arena(50 * MB)
    holders = attached(arena, 2)
    theirs = [holder.run(descriptors) for holder in holders]
    for i in range(20):
        holders[i % 2].run(put_array, str(i), i, (i + 1) * MB // 4)
        holders[1 - i % 2].run(keep, str(i))
        assert holders[0].run(in_dev_shm) == []
        assert in_dev_shm() == before[0]
    given = arena.give(arena.find("job", ["19"])[0])
    for holder in holders:
        holder.run(let_go)
        holder.run(close_holder)
    arena.clear("job")
    assert [holder.run(descriptors) for holder in holders] == theirs
    assert [holder.run(maps) for holder in holders] == [[], []]
    arena.close()
    del given
    assert (in_dev_shm(), descriptors(), maps()) == before


def test_finalisers_that_run_while_the_books_are_locked_do_not_wait_and_are_heard_afterwards(arena):
    sealed = arena.seal(np.zeros(MB))
    with arena._guard:
        del sealed
        assert arena._pool.unused == 0
    assert arena.figures().unused > 0


def test_threads_of_the_client_seal_open_and_delete_at_once(arena):
    wrong = []

    def work(member):
        for i in range(30):
            size = random.Random(member * 100 + i).choice((1000, 20_000, 60_000, 300_000))
            arena.put("job", f"{member}.{i}", serialize.dumps(np.full(size, member)))
            value = serialize.loads(arena.get("job", [f"{member}.{i}"])[0])
            if i % 3:
                arena.delete("job", [f"{member}.{i}"])
            if set(np.unique(value)) != {member}:
                wrong.append((member, i))

    threads = [threading.Thread(target=work, args=(member,)) for member in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert wrong == []
    arena.clear("job")
    figures = arena.figures()
    assert figures.in_memory - figures.unused == capacity(4 * MB)  # the block that small values of the client share


def keep_with_few_descriptors(holder, memory, names, more):
    few = len(os.listdir("/proc/self/fd")) + more
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))
    memory["kept"] = holder.get("job", names)


def test_a_process_that_can_map_no_more_says_so_and_has_let_go_of_everything(arena):
    holder = HolderProcess().attach(arena)  # of its own: a hard limit does not go up again
    for i in range(10):
        holder.run(put_array, str(i), i, MB)
    with pytest.raises(MemoryLimitReached, match=r"10 values .* can map no more: Too many open files"):
        holder.run(keep_with_few_descriptors, [str(i) for i in range(10)], 12)
    holder.run(let_go)
    holder.close()
    assert [block for block in arena._pool.blocks.values() if block.readers] == []


def test_extents_do_not_travel_by_themselves(arena):
    with pytest.raises(TypeError, match=r"Arena\.lend"):
        pickle.dumps(arena.seal(np.zeros(MB)))


class Readers(RuleBasedStateMachine):
    """Whatever is put, opened, deleted, let go and killed in whatever order: what a reader sees never changes.

    The model: what was put under each name, and what each process has mapped under which name. The client is process 0.
    """

    sizes = st.sampled_from((40_000, 100_000, 500_000, 600_000, 700_000, 5_000_000))
    processes = st.integers(0, 2)

    @initialize(limit=st.sampled_from((2 * MB, 16 * MB, 400 * MB)))
    def begin(self, limit):
        self.arena = Arena(limit)
        self.holders = attached(self.arena, 2)
        self.memory = {}
        self.values, self.mapped, self.count = {}, [{}, {}, {}], 0

    def run(self, process, function, *args):
        if process:
            return self.holders[process - 1].run(function, *args)
        return function(self.arena, self.memory, *args)

    @rule(process=processes, nbytes=sizes)
    def put(self, process, nbytes):
        self.count += 1
        self.values[str(self.count)] = self.count
        self.run(process, put_array, str(self.count), self.count, nbytes)

    @precondition(lambda self: self.values)
    @rule(process=processes, data=st.data())
    def open(self, process, data):
        name = data.draw(st.sampled_from(sorted(self.values)))
        self.run(process, keep, name)
        self.mapped[process][name] = self.values[name]

    @precondition(lambda self: any(self.mapped))
    @rule(data=st.data(), scribbling=st.booleans())
    def write_or_let_go(self, data, scribbling):
        process, name = data.draw(st.sampled_from([(p, name) for p in range(3) for name in self.mapped[p]]))
        if scribbling:
            self.run(process, scribble, name)
            self.mapped[process][name] = -1
        else:
            self.run(process, let_go, name)
            del self.mapped[process][name]

    @precondition(lambda self: self.values)
    @rule(data=st.data())
    def delete(self, data):
        names = data.draw(st.sets(st.sampled_from(sorted(self.values)), min_size=1))
        self.arena.delete("job", sorted(names))
        for name in names:
            del self.values[name]

    @precondition(lambda self: self.count % 8 == 7)  # rarely: a new process takes long
    @rule(process=st.integers(0, 1))
    def kill(self, process):
        self.holders[process].kill()
        self.holders[process] = HolderProcess().attach(self.arena)
        _PROCESSES.append(self.holders[process])
        self.mapped[process + 1].clear()

    @invariant()
    def readers_see_what_they_saw(self):
        for process, mapped in enumerate(getattr(self, "mapped", ())):
            for name, number in mapped.items():
                assert self.run(process, seen, name) == {number}

    def teardown(self):
        if hasattr(self, "arena"):
            self.memory.clear()
            for process in (1, 2):
                self.run(process, let_go)
            self.arena.clear("job")
            used = [block for block in self.arena._pool.blocks.values() if block.extents or block.readers]
            assert used == []
            figures = self.arena.figures()
            shared = [block.size for block in self.arena._shared.values() if not block.on_disk]
            assert figures.in_memory - figures.unused == sum(shared)
            self.arena.close()


def often(examples, steps):

    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )


def test_what_a_reader_sees_never_changes():
    run_state_machine_as_test(Readers, settings=often(6, 25))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_what_a_reader_sees_never_changes_for_long():
    run_state_machine_as_test(Readers, settings=often(200, 50))

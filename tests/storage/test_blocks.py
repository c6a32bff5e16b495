"""Blocks, writing and reading them: what has no name, whose memory a loaded value is, and where limits are met."""

import builtins
import ctypes
import gc
import mmap
import os
import resource
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from wukong import serialize
from wukong.errors import MemoryLimitReached
from wukong.storage import blocks, memory, writer
from wukong.storage.arena import Arena
from wukong.storage.blocks import Piece
from wukong.storage.memory import disk_here, memory_here
from wukong.storage.pool import capacity

MB = 1 << 20


@pytest.fixture
def arena():
    arena = Arena(512 * MB)
    yield arena
    arena.close()


def address(view):
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def loaded_within(arena, value):
    """Seal and load `value`; return it, and whether memory lies within the mapping it was loaded from."""
    view = arena.open(arena.seal(value))
    begin, end = address(view), address(view) + view.nbytes
    return serialize.loads(view), lambda start, nbytes: begin <= start and start + nbytes <= end


def test_arrays_are_views_of_the_mapping_and_writable(arena):
    array, within = loaded_within(arena, np.arange(MB, dtype="f8"))
    assert within(array.ctypes.data, array.nbytes)
    assert array.flags.writeable
    assert (array == np.arange(MB)).all()


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_within_other_things_is_a_view_too(arena, order):
    source = {"a": [np.zeros((1000, 100), order=order)], "b": (np.ones(50_000), "text")}
    value, within = loaded_within(arena, source)
    assert all(within(x.ctypes.data, x.nbytes) for x in (value["a"][0], value["b"][0]))


def test_the_columns_of_a_dataframe_are_views(arena):
    frame = pd.DataFrame({"a": np.arange(100_000), "b": np.arange(100_000) / 7, "c": np.arange(100_000) * 2})
    value, within = loaded_within(arena, frame)
    assert all(within(value[name].to_numpy().ctypes.data, 800_000) for name in frame)
    pd.testing.assert_frame_equal(value, frame)


def test_the_buffers_of_arrow_are_views_also_within_a_dataframe(arena):
    words = pa.array([f"word {i}" for i in range(50_000)])
    table, within = loaded_within(arena, pa.table({"i": pa.array(range(100_000)), "w": [*words.to_pylist()] * 2}))
    columns = [chunk for column in table.columns for chunk in column.chunks]
    assert all(within(b.address, b.size) for chunk in columns for b in chunk.buffers() if b is not None)

    series, within = loaded_within(arena, pd.Series(words.to_pylist(), dtype=pd.ArrowDtype(pa.string())))
    chunks = series.array.__arrow_array__().chunks
    assert all(within(b.address, b.size) for chunk in chunks for b in chunk.buffers() if b is not None)
    assert series.tolist() == words.to_pylist()


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_are_copied_into_the_block_from_where_they_are_and_once_when_loaded(arena, kind):
    value = kind(os.urandom(3 * MB))
    assert any(part is value for part in serialize.dumps(value))
    again = arena.unseal(arena.seal(value))
    assert type(again) is kind
    assert again == value


def test_a_view_keeps_the_mapping_and_the_last_one_ends_it():
    ended = []
    fd = blocks.make_in_memory(MB)
    view = blocks.read(fd, Piece(7, 0, MB), lambda *args: ended.append(args))
    array = np.frombuffer(view, "f8")
    part = array[100:200].reshape(10, 10).T
    del view, array
    gc.collect()
    assert ended == []
    part[0, 0] = 1
    del part
    assert ended == [(7, False)]
    os.close(fd)


def test_after_a_fork_a_mapping_ends_in_doubt():
    ended = []
    fd = blocks.make_in_memory(MB)
    before = blocks.read(fd, Piece(1, 0, MB), lambda *args: ended.append(args))
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    after = blocks.read(fd, Piece(2, 0, MB), lambda *args: ended.append(args))
    del before, after
    assert ended == [(1, True), (2, False)]
    os.close(fd)


def test_a_child_that_lets_go_of_what_it_inherited_leaves_the_parent_s_memory_alone(arena):
    sealed = arena.seal(np.ones(MB))
    given = [arena.give(arena.seal(np.ones(MB)))]
    child = os.fork()
    if not child:
        try:
            del sealed
            given.clear()
            arena.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert arena.unseal(sealed).sum() == given[0].sum() == MB


@pytest.mark.parametrize("unnamed_files", [True, False])
def test_a_block_on_disk_has_its_room_at_once_and_no_name(tmp_path, monkeypatch, unnamed_files):
    if not unnamed_files:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    fd = blocks.make_on_disk(3 * MB, str(tmp_path))
    assert os.listdir(tmp_path) == []
    assert os.fstat(fd).st_nlink == 0
    assert os.fstat(fd).st_size == 3 * MB
    assert os.fstat(fd).st_blocks * 512 >= 3 * MB
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_without_memfd_blocks_are_files_without_a_name(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    arena = Arena(100 * MB)
    for i in range(5):
        assert set(arena.unseal(arena.seal(np.full(MB, i)))) == {i}
    assert arena.figures().made == 1
    assert os.listdir(tmp_path) == []
    arena.close()


def test_nothing_is_opened_in_dev_shm(monkeypatch):
    opened = []

    def noting(plain):
        return lambda path, *args, **options: opened.append(str(path)) or plain(path, *args, **options)

    monkeypatch.setattr(os, "open", noting(os.open))
    monkeypatch.setattr(builtins, "open", noting(builtins.open))
    arena = Arena(10 * MB)
    kept = [arena.seal(np.zeros(MB)) for _ in range(3)]
    assert arena.figures().spilled == 2
    assert not [path for path in opened if "shm" in path]
    links = [os.readlink(f"/proc/self/fd/{block.fd}") for block in arena._pool.blocks.values()]
    assert sum(link.startswith("/memfd:wukong") for link in links) == 1
    assert sum(link.endswith("(deleted)") for link in links) == len(kept)
    arena.close()


def test_descriptors_are_asked_for_when_they_run_out_and_then_there_is_an_error():
    code = """if True:
        import resource
        from wukong.errors import MemoryLimitReached
        from wukong.storage.arena import Arena
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 100))
        arena, kept = Arena(1 << 30), []
        try:
            while True:
                kept.append(arena.seal(bytes(600_000)))
        except MemoryLimitReached as error:
            print(len(kept), resource.getrlimit(resource.RLIMIT_NOFILE)[0], error)
        kept.clear()
        for i in range(5):
            kept = [arena.seal(bytes(600_000)), arena.seal(bytes(1_200_000))]
        assert len(arena.unseal(kept[0])) == 600_000
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    count, limit, *_ = run.stdout.split()
    assert 80 < int(count) < 100
    assert limit == "100"
    assert "Too many open files" in run.stdout


def test_more_descriptors_are_expected_before_they_come():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
    try:
        blocks.expect_descriptors(400)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 1000
        blocks.expect_descriptors(600)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(4000, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_second_time_a_block_is_written_through_a_mapping_that_stays(arena):
    for _ in range(4):
        arena.unseal(arena.seal(np.ones(MB)))
    (kept,) = arena._writer._warm.values()
    assert isinstance(kept, mmap.mmap)
    for i in range(4):
        assert set(arena.unseal(arena.seal(np.full(MB, i)))) == {i}
    assert list(arena._writer._warm.values()) == [kept]


def test_what_cannot_be_written_is_an_error_and_its_block_is_free_again(arena, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(MemoryLimitReached, match="No space left on device"):
            arena.seal(np.ones(MB))
        with pytest.raises(MemoryLimitReached, match="No space left on device"):
            arena.seal(np.ones(20_000))
    assert arena.figures().unused == capacity(8 * MB + 200)
    assert arena.unseal(arena.seal(np.ones(20_000))).sum() == 20_000


def test_writes_that_are_cut_short_go_on(arena, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:100_000], at))
    assert (arena.unseal(arena.seal(np.arange(MB))) == np.arange(MB)).all()


@pytest.mark.parametrize("with_numpy", [True, False])
def test_copying_does_not_need_numpy(monkeypatch, with_numpy):
    if not with_numpy:
        monkeypatch.delitem(sys.modules, "numpy")
    source, into = os.urandom(200_000), bytearray(200_000)
    writer.copy(memoryview(into), memoryview(source))
    assert into == source


def test_other_threads_run_while_much_is_copied():
    source, into = memoryview(bytes(400 * MB)), memoryview(bytearray(400 * MB))
    ran, copying = [], threading.Event()

    def count():
        copying.wait(10.0)
        while copying.is_set():
            ran.append(None)

    thread = threading.Thread(target=count)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread.start()
    try:
        copying.set()
        writer.copy(into, source)
        during = len(ran)
    finally:
        copying.clear()
        thread.join(10.0)
        sys.setswitchinterval(interval)
    assert during > 1000


def test_sizes_of_blocks_are_few_and_little_is_wasted():
    sizes = {capacity(n) for n in range(64 * 1024, 8 * MB, 1000)}
    assert len(sizes) <= 7 * 9
    assert all(0 <= capacity(n) - n < n / 8 + 4096 for n in range(64 * 1024, 8 * MB, 1000))
    assert all(size % mmap.ALLOCATIONGRANULARITY == 0 for size in sizes)


@pytest.mark.parametrize("nbytes", [100_000, 4 * MB])
def test_an_interrupted_write_leaves_nothing_in_use(arena, monkeypatch, nbytes):
    def interrupted(*_):
        raise KeyboardInterrupt

    arena.seal(bytes(100_000))
    before = arena.figures()
    monkeypatch.setattr(writer, "_write_all", interrupted)
    monkeypatch.setattr(writer, "copy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        arena.seal(bytes(nbytes))
    after = arena.figures()
    assert after.in_memory - after.unused == before.in_memory - before.unused


def test_a_block_that_is_larger_than_files_may_be_leaves_no_descriptor(arena):
    gc.collect()
    before = os.listdir("/proc/self/fd")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MB, hard))
    try:
        with pytest.raises(MemoryLimitReached, match="File too large"):
            arena.seal(bytes(4 * MB))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert set(os.listdir("/proc/self/fd")) <= set(before)


def test_the_memory_of_this_process_is_what_its_cgroup_allows(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("5000\n")
    assert memory._limit(tmp_path, False) == 5000
    (tmp_path / "memory.limit_in_bytes").write_text("7000\n")
    assert memory._limit(tmp_path, True) == 7000
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory_here() <= machine
    monkeypatch.setattr("wukong.cgroups.limits", lambda *_: [machine // 2, machine // 3, 2 * machine])
    assert memory_here() == machine // 3
    assert disk_here(str(tmp_path)) > 0

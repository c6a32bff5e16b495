"""What climbs the ladder: GEMM, TSQR and the paper's SVD of a square matrix; blocks made in tasks, one number out."""

from dataclasses import dataclass
from typing import Any

from benchmarks.peers.graphs import gemm, gemm_truth


@dataclass(frozen=True, slots=True)
class Workload:
    """A graph and its truth, at a size: arguments of both."""

    about: str
    full: tuple[int, ...]
    quick: tuple[int, ...]
    make: Any
    truth: Any


def tsqr(rows: int, columns: int, blocks: int) -> tuple[Any]:
    """Product of the diagonal of R, in logarithms: blocks are factored, then pairs of their Rs, and of these again."""
    import dask.array as da
    from dask import delayed

    tall = da.random.default_rng(1).standard_normal((rows, columns), chunks=(rows // blocks, columns))
    level = [delayed(triangle)(block) for block in tall.to_delayed().ravel()]
    while len(level) > 1:
        level = [delayed(triangle)(*pair) for pair in zip(level[::2], level[1::2], strict=True)]
    return (delayed(volume)(level[0]),)


def tsqr_truth(rows: int, columns: int, blocks: int) -> float:
    """The same from the determinant of x.T @ x."""
    import dask.array as da
    import numpy as np

    tall = da.random.default_rng(1).standard_normal((rows, columns), chunks=(rows // blocks, columns))
    x = tall.compute(scheduler="sync")
    return float(np.linalg.slogdet(x.T @ x)[1] / 2)


def triangle(*blocks: Any) -> Any:
    """Return the R of blocks, one above the other."""
    import numpy as np

    return np.linalg.qr(np.vstack(blocks), mode="r")


def volume(r: Any) -> float:
    """Return the logarithm of the absolute determinant of a triangular matrix."""
    import numpy as np

    return float(np.log(np.abs(np.diag(r))).sum())


def svd(side: int, chunk: int, rank: int) -> tuple[Any]:
    """Sum of the first singular values of a square matrix: by random projection, with one power iteration."""
    import dask.array as da

    square = da.random.default_rng(1).standard_normal((side, side), chunks=(chunk, chunk))
    return (da.linalg.svd_compressed(square, rank, n_power_iter=1, seed=2)[1].sum(),)


def svd_truth(side: int, chunk: int, rank: int) -> float:
    """The same by Dask in one thread: what is projected on is random, so no other way comes to these digits."""
    return float(svd(side, chunk, rank)[0].compute(scheduler="sync"))


WORKLOADS = {
    "gemm": Workload("GEMM, side {}, chunks of {}", (2048, 256), (1024, 256), gemm, gemm_truth),
    "tsqr": Workload("TSQR of {} x {} in {} blocks", (256_000, 256, 128), (32_000, 256, 16), tsqr, tsqr_truth),
    "svd": Workload("SVD, side {}, chunks of {}, rank {}", (4096, 512, 50), (2048, 512, 50), svd, svd_truth),
}

"""A matrix product in blocks, as Dask writes it: every block of the result is a sum of products of blocks.

    python examples/gemm.py [N]

Multiplies two N x N matrices (4,096) of random numbers. The result is held against NumPy's: it may be no further from
it than rounding can account for. Needs ``pip install 'wukong[demo]'``.
"""

import sys

import dask.array as da
import numpy as np
from timing import by_wukong_and_dask, timed

from wukong.diagnostics.summary import size


def main(n: int = 4096) -> None:
    """Multiply, check, and say what the run was like."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, n, n))
    block = -(-n // 4)
    print(f"GEMM of two {n:,} x {n:,} matrices ({size(a.nbytes)} each) in blocks of {block:,} x {block:,}")

    (product,) = by_wukong_and_dask(da.from_array(a, chunks=block) @ da.from_array(b, chunks=block))

    with timed("NumPy"):
        expected = a @ b
    # Higham, Accuracy and Stability of Numerical Algorithms, 3.5: true of sums in any order; both may be off.
    bound = 2 * n * np.finfo(float).eps * np.linalg.norm(a) * np.linalg.norm(b)
    error = np.linalg.norm(product - expected)
    assert error <= bound, f"the product is {error:.2g} from NumPy's, but rounding explains {bound:.2g} at most"
    print(f"{'checked':<12} {error:.2g} from NumPy's product, where rounding explains up to {bound:.2g}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""What photographs are made of: the singular value decomposition of all their small patches, tall and skinny.

    python examples/svd.py [EVERY]

Each patch of 8 x 8 pixels in each EVERY-th (2) row of the two photographs that come with scikit-learn, less its mean,
is a row of a matrix with 64 columns. Its right singular vectors are the patterns that patches are best put
together from: waves, and nobody told it so. They go to out/demo/patterns.png. Values and vectors are held against
NumPy's, and the factors against the matrix. Needs ``pip install 'wukong[demo]'``.
"""

import sys
from pathlib import Path

import dask.array as da
import numpy as np
from matplotlib.image import imsave
from sklearn.datasets import load_sample_images
from timing import by_wukong_and_dask, timed

from wukong.diagnostics.summary import size

SIDE = 8


def patches_of(photograph: np.ndarray, every: int) -> np.ndarray:
    """Return the patches in rows of an image (height, width, 3), in grey and less their means: (patches, SIDE**2)."""
    grey = photograph @ np.array([0.299, 0.587, 0.114]) / 255
    patches = np.lib.stride_tricks.sliding_window_view(grey, (SIDE, SIDE))[::every].reshape(-1, SIDE**2)
    return patches - patches.mean(axis=1, keepdims=True)


def main(every: int = 2) -> None:
    """Decompose, check, draw, and say what the run was like."""
    matrix = np.concatenate([patches_of(photograph, every) for photograph in load_sample_images().images])
    print(f"SVD of {len(matrix):,} patches of {SIDE} x {SIDE} pixels, {size(matrix.nbytes)}")

    x = da.from_array(matrix, chunks=(-(-len(matrix) // 16), -1))
    u, s, v = da.linalg.svd(x)
    values, patterns, left = by_wukong_and_dask(s, v, da.linalg.norm(x - (u * s) @ v))

    with timed("NumPy"):
        _, expected, whole_v = np.linalg.svd(matrix, full_matrices=False)
    length = np.linalg.norm(matrix)
    assert left < 1e-12 * length, "the factors do not give the matrix"
    assert np.abs(values - expected).max() < 1e-12 * length, "a singular value differs from NumPy's"
    # A vector is as sure as its value is far from the next; the last value is 0, as patches have no mean.
    gaps = np.minimum(np.append(np.inf, -np.diff(expected)), np.append(-np.diff(expected), np.inf))
    alike = np.abs(np.sum(patterns * whole_v, axis=1))
    assert np.all(1 - alike < (1e-12 * length / gaps) ** 2 + 1e-12), "a singular vector differs from NumPy's"
    print(f"{'checked':<12} values and vectors are NumPy's, the factors give the matrix")
    share = np.cumsum(values**2) / length**2
    print(f"{'found':<12} 4 patterns have {share[3]:.1%} of the variance, 16 have {share[15]:.1%}")

    path = Path("out/demo/patterns.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    tiles = np.pad(patterns.reshape(8, 8, SIDE, SIDE), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    sheet = tiles.transpose(0, 2, 1, 3).reshape(8 * (SIDE + 2), -1)
    imsave(path, np.kron(sheet, np.ones((6, 6))), cmap="gray", vmin=-0.3, vmax=0.3)
    print(f"{'wrote':<12} {path}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

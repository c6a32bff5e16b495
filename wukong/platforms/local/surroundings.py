"""What code finds around it and does not import: applied in a worker as it is in the client."""


def dask_is_here() -> None:
    """Apply Dask's configuration, which had to wait until Dask is imported."""

"""The threads of numpy's matrix products, for the whole process."""

import numpy  # noqa: F401 -- loads the BLAS, which must be there to be limited
from threadpoolctl import threadpool_limits


def limit(threads: int) -> None:
    """Bound the threads of numpy's BLAS.

    Matrix products of forecasts are small: waiting for BLAS threads would take longer than the products, and threads
    that wait spin.
    """
    threadpool_limits(threads, user_api="blas")

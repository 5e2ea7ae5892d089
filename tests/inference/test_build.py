"""The threads of one batch: BLAS threads for numpy's matrix products are limited to the engine's threads."""

from threadpoolctl import threadpool_info, threadpool_limits

from inference.build import build
from inference.config import Config


async def test_matrix_products_take_as_many_threads_as_an_engine_may():
    with threadpool_limits(2, user_api="blas"):
        build(Config(device="cpu", engine_threads=1, _env_file=None)).close()
        threads = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    assert threads == {1}

"""The tests of this folder run with streams carried by gRPC, and by a Unix socket."""

import pytest


@pytest.fixture(params=["grpc", "unix"])
def carrier(request) -> str:
    return request.param

"""The operator's calls over a real socket."""

import grpc
import pytest

from inference.calls.admin import Admin
from inference.loading.catalog import Catalog, Slot
from market_inference.contract.generated import admin_pb2, admin_pb2_grpc, inference_pb2


@pytest.fixture
async def stub(model):
    server = grpc.aio.server()
    admin_pb2_grpc.add_AdminServiceServicer_to_server(
        Admin(Catalog([Slot("e", "m", lambda: model, is_default=True)])), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield admin_pb2_grpc.AdminServiceStub(channel)
    await server.stop(None)


async def test_a_model_is_loaded_and_unloaded(stub):
    loaded = await stub.LoadModel(admin_pb2.LoadModelRequest(engine="e"))
    assert (loaded.model.name, loaded.model.state) == ("m", inference_pb2.MODEL_STATE_READY)
    freed = await stub.UnloadModel(admin_pb2.UnloadModelRequest(engine="e", model="m"))
    assert freed.model.state == inference_pb2.MODEL_STATE_AVAILABLE


@pytest.mark.parametrize(
    ("engine", "model", "code"),
    [("x", "", grpc.StatusCode.INVALID_ARGUMENT), ("e", "x", grpc.StatusCode.NOT_FOUND)],
)
async def test_what_is_not_there_is_a_typed_error(stub, engine, model, code):
    with pytest.raises(grpc.RpcError) as caught:
        await stub.LoadModel(admin_pb2.LoadModelRequest(engine=engine, model=model))
    assert caught.value.code() is code
    assert "there are" in caught.value.details()
    assert "grpc-status-details-bin" in dict(caught.value.trailing_metadata())

"""The operator's RPCs: reload a model, or unload a model."""

from typing import Any

from inference.loading.catalog import Catalog
from inference.status import model_info
from market_inference.contract import codes
from market_inference.contract.errors import InvalidRequestError, ServiceError, Violation
from market_inference.contract.generated import admin_pb2, admin_pb2_grpc


class Admin(admin_pb2_grpc.AdminServiceServicer):
    """Acts on the catalog. Errors have the form of the public RPCs' errors."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def LoadModel(  # noqa: N802 -- the contract's name
        self, request: admin_pb2.LoadModelRequest, context: Any
    ) -> admin_pb2.LoadModelResponse:
        slot = await self._slot(request.engine, request.model, context)
        try:
            await self._catalog.replace(slot.engine, slot.name, slot.load)
        except ServiceError as error:
            await codes.abort(context, error)
        return admin_pb2.LoadModelResponse(model=model_info(slot))

    async def UnloadModel(  # noqa: N802 -- the contract's name
        self, request: admin_pb2.UnloadModelRequest, context: Any
    ) -> admin_pb2.UnloadModelResponse:
        slot = await self._slot(request.engine, request.model, context)
        self._catalog.unload(slot)
        return admin_pb2.UnloadModelResponse(model=model_info(slot))

    async def _slot(self, engine: str, model: str, context: Any) -> Any:
        try:
            if engine not in self._catalog.engines:
                known = ", ".join(self._catalog.engines)
                raise InvalidRequestError([Violation("engine", f"unknown engine {engine!r}; there are: {known}")])
            return self._catalog.slot(engine, model)
        except ServiceError as error:
            await codes.abort(context, error)

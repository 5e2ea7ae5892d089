"""The operator's calls: load a model anew, or free its memory."""

from typing import Any

from inference.loading.catalogue import Catalogue
from inference.status import model_info
from market_inference.contract import codes
from market_inference.contract.errors import InvalidRequestError, ServiceError, Violation
from market_inference.contract.generated import admin_pb2, admin_pb2_grpc


class Admin(admin_pb2_grpc.AdminServiceServicer):
    """Acts on the catalogue. Errors are the public calls' errors."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def LoadModel(  # noqa: N802 -- the contract's name
        self, request: admin_pb2.LoadModelRequest, context: Any
    ) -> admin_pb2.LoadModelResponse:
        slot = await self._slot(request.engine, request.model, context)
        try:
            await self._catalogue.replace(slot.engine, slot.name, slot.load)
        except ServiceError as error:
            await codes.abort(context, error)
        return admin_pb2.LoadModelResponse(model=model_info(slot))

    async def UnloadModel(  # noqa: N802 -- the contract's name
        self, request: admin_pb2.UnloadModelRequest, context: Any
    ) -> admin_pb2.UnloadModelResponse:
        slot = await self._slot(request.engine, request.model, context)
        self._catalogue.unload(slot)
        return admin_pb2.UnloadModelResponse(model=model_info(slot))

    async def _slot(self, engine: str, model: str, context: Any) -> Any:
        try:
            if engine not in self._catalogue.engines:
                known = ", ".join(self._catalogue.engines)
                raise InvalidRequestError([Violation("engine", f"unknown engine {engine!r}; there are: {known}")])
            return self._catalogue.slot(engine, model)
        except ServiceError as error:
            await codes.abort(context, error)

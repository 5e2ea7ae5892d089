"""The gRPC service on loopback that takes profiles of this process.

Owns access (callers on this machine) and the bound of one profile at a time. sampler.py samples stacks; the inference
service profiles its device.
"""

import functools
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc

from market_inference.contract import codes, methods
from market_inference.contract.errors import (
    InternalError,
    InvalidRequestError,
    OverloadedError,
    ServiceError,
    Violation,
)
from market_inference.contract.generated import profile_pb2, profile_pb2_grpc
from runtime.listen import NO_COMPRESSION, bind
from runtime.logs import fields
from runtime.profiling.sampler import Sampler

log = logging.getLogger(__name__)

Request = profile_pb2.TakeProfileRequest
Take = Callable[[Request], Awaitable[bytes]]
"""Takes a profile of one kind. Raises ServiceError."""

_FORMS = {
    profile_pb2.PROFILE_KIND_UNSPECIFIED: "flamegraph",
    profile_pb2.PROFILE_KIND_FLAMEGRAPH: "flamegraph",
    profile_pb2.PROFILE_KIND_SPEEDSCOPE: "speedscope",
    profile_pb2.PROFILE_KIND_FOLDED: "raw",
}
_SECONDS = methods.field_rules(Request.DESCRIPTOR.fields_by_name["seconds"]).uint32


class Profiles(profile_pb2_grpc.ProfileServiceServicer):
    """Takes profiles of py-spy's kinds and of the kinds in `others`. Errors have the public RPCs' form."""

    def __init__(self, sampler: Sampler, others: Mapping[int, Take]) -> None:
        self._kinds: dict[int, Take] = {
            kind: functools.partial(_sample, sampler, form) for kind, form in _FORMS.items()
        } | dict(others)
        self._busy = False

    async def TakeProfile(  # noqa: N802 -- the contract's name
        self, request: Request, context: Any
    ) -> profile_pb2.TakeProfileResponse:
        try:
            profile = await self._take(request)
        except ServiceError as error:
            await codes.abort(context, error)
        except Exception:  # a bug here or in a profiler: the log gets the trace, the caller INTERNAL without details
            log.exception("profile failed")
            await codes.abort(context, InternalError("the profile failed; the service's log says why"))
        return profile_pb2.TakeProfileResponse(profile=profile, process_id=os.getpid())

    async def _take(self, request: Request) -> bytes:
        if not _SECONDS.gte <= request.seconds <= _SECONDS.lte:
            raise InvalidRequestError([Violation("seconds", f"must be {_SECONDS.gte} to {_SECONDS.lte}", "uint32.gte")])
        take = self._kinds.get(request.kind)
        if take is None:
            raise InvalidRequestError([Violation("kind", "is not one that this process can take", "enum.defined_only")])
        if self._busy:
            raise OverloadedError("a profile of this process is being taken", retry_after=1.0)
        self._busy = True
        log.info("profile", extra=fields(seconds=request.seconds, kind=profile_pb2.ProfileKind.Name(request.kind)))
        try:
            return await take(request)
        finally:
            self._busy = False


async def _sample(sampler: Sampler, form: str, request: Request) -> bytes:
    return await sampler.sample(request.seconds, form)


class ProfileServer:
    """The profile service on a loopback address. `shared`: several processes listen on the address (SO_REUSEPORT).

    `setting` is the setting that turned profiles on. Raises ExtraMissingError; start() raises CannotListenError.
    """

    def __init__(self, address: str, setting: str, others: Mapping[int, Take], *, shared: bool = False) -> None:
        options = [("grpc.so_reuseport", int(shared)), ("grpc.max_send_message_length", -1), NO_COMPRESSION]
        self._server = grpc.aio.server(options=options)
        profile_pb2_grpc.add_ProfileServiceServicer_to_server(Profiles(Sampler(setting), others), self._server)
        self.address = address

    async def start(self) -> None:
        self.address = bind(self._server.add_insecure_port, self.address)
        await self._server.start()
        log.info("profiles may be taken", extra=fields(listen=self.address))

    async def stop(self) -> None:
        """Stop at once; a profile in progress is cancelled."""
        await self._server.stop(None)

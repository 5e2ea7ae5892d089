"""Errors that the edge itself makes, beside those of the contract."""

from google.rpc import code_pb2

from market_inference.contract.errors import InvalidRequestError, ServiceError, Violation


class NoRouteError(ServiceError):
    """No route has the path."""

    code = code_pb2.NOT_FOUND
    reason = "NO_ROUTE"


class MethodNotAllowedError(ServiceError):
    """The route has other HTTP methods."""

    code = code_pb2.UNIMPLEMENTED
    reason = "METHOD_NOT_ALLOWED"
    http_status = 405


class MediaTypeError(InvalidRequestError):
    """The body's or the wanted answer's media type is not one of the route's."""

    reason = "UNSUPPORTED_MEDIA_TYPE"
    http_status = 415

    def __init__(self, got: str, known: str) -> None:
        super().__init__([Violation("Content-Type", f"must be one of {known} (got {got[:64] or 'none'})", "in")])


class TableTooLargeError(InvalidRequestError):
    """A table that would take more of the edge's memory than one table may."""

    code = code_pb2.RESOURCE_EXHAUSTED
    reason = "REQUEST_TOO_LARGE"

    def __init__(self, rows: int, cells: int, memory: int, most: int) -> None:
        description = (
            f"table too large: {rows} rows with {cells} cells take about {memory} bytes of memory (max {most} for a "
            "table): send fewer columns, newer rows only, or the instruments in several requests"
        )
        super().__init__([Violation("body", description, "table")])


class ForeignOriginError(ServiceError):
    """A page of another site called, and the configuration does not name its origin."""

    code = code_pb2.PERMISSION_DENIED
    reason = "FOREIGN_ORIGIN"


class BodyTooSlowError(ServiceError):
    """The body did not arrive in time."""

    code = code_pb2.DEADLINE_EXCEEDED
    reason = "BODY_TOO_SLOW"
    http_status = 408


class ClientGoneError(Exception):
    """The client closed the connection before the answer."""

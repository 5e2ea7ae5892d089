"""gRPC's status codes by their numbers, for whoever ends a call with a google.rpc.Status."""

from typing import Final

import grpc

BY_NUMBER: Final = {code.value[0]: code for code in grpc.StatusCode}

"""Names of the metadata that travel with a call."""

AUTHORIZATION = "authorization"
API_KEY = "x-api-key"
REQUEST_ID = "x-request-id"
PRIORITY = "x-priority"
TRACEPARENT = "traceparent"
STATUS_DETAILS = "grpc-status-details-bin"

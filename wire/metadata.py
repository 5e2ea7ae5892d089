"""Names of the metadata that travel with a call."""

AUTHORIZATION = "authorization"
API_KEY = "x-api-key"
REQUEST_ID = "x-request-id"
PRIORITY = "x-priority"
TRACEPARENT = "traceparent"
# In the trailers of calls of clients that have a limit: cost units left of the burst, and of the day (UTC).
RATE_REMAINING = "x-rate-remaining"
QUOTA_REMAINING = "x-quota-remaining"
STATUS_DETAILS = "grpc-status-details-bin"

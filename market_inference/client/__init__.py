"""The Python client: calls, answers, streams and live sessions."""

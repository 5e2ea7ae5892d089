"""The contract as JSON: one code for the serverless worker and for the HTTP edge.

`forms.py` expands the short forms of requests, `decode.py` makes messages from JSON, `encode.py` makes JSON from
messages, and `mistakes.py` words the errors in the names that the caller wrote.
"""

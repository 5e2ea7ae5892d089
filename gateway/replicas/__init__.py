"""Which inference replica serves a request, and the connection to it."""

"""The HTTP edge: JSON, CSV, Arrow, live updates and a page in the browser, over the gateway's gRPC."""

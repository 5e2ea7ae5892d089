"""Where calls enter: a gRPC server of either transport."""

"""The inference service as a RunPod serverless worker: JSON jobs in, JSON results out, no gRPC in between."""

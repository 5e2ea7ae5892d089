"""The inference service as a RunPod serverless worker: jobs of JSON in, the same servicer in process, JSON out."""

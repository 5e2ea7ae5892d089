"""Rules, dashboards and a Prometheus configuration over the metrics of gateway/ and inference/."""

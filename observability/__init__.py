"""Rules, dashboards and a Prometheus configuration over the metrics of gateway/, inference/, edge/ and training/."""

"""How a service's process lives: logs, TLS, listening, memory, health, metrics, tracing, profiling; remote APIs."""

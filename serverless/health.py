"""The output of the `health` action: the replica's status in short."""

from datetime import UTC, datetime
from typing import Any

from market_inference.contract.generated import inference_pb2
from market_inference.contract.json_form import encode

_MB = 1_000_000


def to_json(replica: inference_pb2.ReplicaStatus, request_id: str) -> dict[str, Any]:
    """Status, GPU memory in MB, and per engine whether the model is loaded and a small real input was answered."""
    kind = inference_pb2.Health.DESCRIPTOR
    return {
        "status": encode.word(kind, replica.health),
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "version": replica.version,
        "gpu": _gpu(replica.device),
        "models": {engine.name: _engine(engine) for engine in replica.engines},
        "request_id": request_id,
    }


def _gpu(device: inference_pb2.Device) -> dict[str, Any]:
    available = device.kind == "cuda"
    return {
        "available": available,
        "device_count": device.count if available else 0,
        "device_name": device.name if available else None,
        "memory_allocated_mb": round(device.memory_allocated_bytes / _MB, 1),
        "memory_reserved_mb": round(device.memory_reserved_bytes / _MB, 1),
    }


def _engine(engine: inference_pb2.EngineStatus) -> dict[str, Any]:
    passed = engine.health == inference_pb2.HEALTH_HEALTHY
    return {
        "name": engine.model,
        "version": engine.model_version,
        "loaded": engine.loaded,
        "test": "passed" if passed else "failed",
        "test_seconds": round(engine.probe_seconds, 4),
        "message": engine.message,
    }

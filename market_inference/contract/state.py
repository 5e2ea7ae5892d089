"""Where the processes on one machine keep local state: the development key and its hash."""

import os
from pathlib import Path


def state_dir() -> Path:
    """`$MARKET_INFERENCE_STATE_DIR`, else market-inference in `$XDG_STATE_HOME`, else in `~/.local/state`."""
    if chosen := os.environ.get("MARKET_INFERENCE_STATE_DIR"):
        return Path(chosen)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "market-inference"


def development_key_file() -> Path:
    """The key that a gateway on loopback makes at its first start; readable by its owner alone."""
    return state_dir() / "development-key"

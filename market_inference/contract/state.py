"""The folder and files of local state that processes on a machine share: the development key."""

import os
from pathlib import Path


def state_dir() -> Path:
    """`$MARKET_INFERENCE_STATE_DIR`, else market-inference in `$XDG_STATE_HOME`, else in `~/.local/state`."""
    if chosen := os.environ.get("MARKET_INFERENCE_STATE_DIR"):
        return Path(chosen)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "market-inference"


def development_key_file() -> Path:
    """The key made by the first gateway that starts on loopback; only the owner may read the file."""
    return state_dir() / "development-key"

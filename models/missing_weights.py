"""Weights of a network that its files lack: transformers draws them at random, differently at every load.

Owns the refusal. `info`: the loading information of transformers (output_loading_info).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.model import ModelUnavailableError


def refuse_missing(named: str, info: Mapping[str, Any]) -> None:
    """Raises ModelUnavailableError for a network with missing weights."""
    missing = sorted(map(str, info["missing_keys"]))
    if missing:
        other = sorted(map(str, info["unexpected_keys"]))
        beside = f", and have others, such as {other[0]!r}" if other else ""
        raise ModelUnavailableError(
            f"the files of {named!r} lack {len(missing)} weights, such as {missing[0]!r}{beside}"
        )


def refuse_missing_body(named: str, info: Mapping[str, Any], prefix: str) -> None:
    """As refuse_missing(), for a network whose head is to be trained: only weights with the prefix may not be missing.

    A language model, on which classifiers are trained, has no pooler.
    """
    lacking = {*map(str, info["missing_keys"]), *(str(name) for name, *_ in info["mismatched_keys"])}
    body = {key for key in lacking if key.startswith(f"{prefix}.") and not key.startswith(f"{prefix}.pooler.")}
    refuse_missing(named, {**info, "missing_keys": body})


def refuse_missing_of(named: str, network: Any, source: str, **where: Any) -> None:
    """As refuse_missing(), for a ``network`` that a library has loaded from ``source``. Reads no weight again.

    ``where``: arguments of from_pretrained(), such as the revision.
    """
    if not (Path(source) / "adapter_config.json").exists():  # peft loads an adapter's base from elsewhere
        kind = type(network)
        # Chronos-Bolt keeps quiet about some of its weights: a T5, from which its training began, lacks these.
        strict: Any = type(kind.__name__, (kind,), {"_keys_to_ignore_on_load_missing": None})
        _, info = strict.from_pretrained(source, device_map="meta", output_loading_info=True, **where)
        refuse_missing(named, info)

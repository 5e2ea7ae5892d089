"""Low-rank adapters by peft.

Owns the one call, and the silence about a name that peft still uses and transformers has replaced.
"""

import warnings
from typing import Any

from peft import LoraConfig, get_peft_model


def adapted(model: Any, config: LoraConfig) -> Any:
    """The model with adapters. Gradients flow to the adapters and to the modules that the configuration saves whole."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        return get_peft_model(model, config)

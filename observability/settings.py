"""The tables of settings in docs/operations.md, generated from the configuration classes.

Owns the form and the place of the tables.
"""

from typing import get_args

from pydantic_settings import BaseSettings

from edge.config import Config as EdgeConfig
from gateway.config import Config as GatewayConfig
from inference.config import Config as InferenceConfig
from serverless.config import Config as ServerlessConfig

_TABLES: dict[str, type[BaseSettings]] = {
    "edge": EdgeConfig,
    "gateway": GatewayConfig,
    "inference": InferenceConfig,
    "worker": ServerlessConfig,
}


def table(config: type[BaseSettings]) -> str:
    """A table with one row per setting: environment variable, default, meaning."""
    prefix = config.model_config["env_prefix"]
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in config.model_fields.items():
        default = "none" if field.default in (None, "") else f"`{field.default}`"
        meaning = field.description or "one of " + ", ".join(map(str, get_args(field.annotation)))
        rows.append(f"| `{prefix}{name.upper()}` | {default} | {meaning} |")
    return "\n".join(rows)


def filled(page: str) -> str:
    """The page with new tables between the marker comments. Raises ValueError for a missing or duplicate marker."""
    for part, config in _TABLES.items():
        begin, end = f"<!-- {part}: ", "<!-- end -->"
        if page.count(begin) != 1 or end not in page.partition(begin)[2]:
            raise ValueError(f"no single place for the settings of {part}")
        before, _, rest = page.partition(begin)
        comment, _, rest = rest.partition("\n")
        after = rest.partition(end)[2]
        page = f"{before}{begin}{comment}\n\n{table(config)}\n\n{end}{after}"
    return page

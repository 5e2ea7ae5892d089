"""The plan of a deployment, and the GPU pools of the platform."""

import re
from dataclasses import dataclass, field

# The pools of RunPod Serverless. The catalog of the API says which GPU types a pool has.
POOLS = (
    "AMPERE_16",
    "AMPERE_24",
    "ADA_24",
    "AMPERE_48",
    "ADA_48_PRO",
    "AMPERE_80",
    "ADA_80_PRO",
    "HOPPER_141",
)
COMMAND = "python -m serverless"
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Plan:
    """`name`: the endpoint's name. Endpoint and template of an earlier deployment are found by name."""

    name: str
    image: str
    gpu: str
    workers_min: int
    workers_max: int
    idle_seconds: int = 5
    disk_gb: int = 20
    env: dict[str, str] = field(default_factory=dict)
    registry_auth: str = ""

    @property
    def template_name(self) -> str:
        return f"{self.name}-template"

    def problems(self) -> list[str]:
        """The errors in the plan that are visible without the platform."""
        found = []
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,60}", self.name):
            found.append(f"name {self.name!r}: 1 to 61 letters, digits, spaces, dots, dashes")
        if self.gpu not in POOLS:
            found.append(f"GPU {self.gpu!r} is not a pool; there are: {', '.join(POOLS)}")
        if not 0 <= self.workers_min <= self.workers_max or self.workers_max < 1:
            found.append(f"workers: 0 <= min <= max and max >= 1 (got {self.workers_min} and {self.workers_max})")
        found.extend(f"environment variable {name!r}: not a name" for name in self.env if not _ENV_NAME.fullmatch(name))
        found.extend(
            f"environment variable {name!r}: looks like a secret, and a template shows its values; "
            "use a RunPod secret: {{ RUNPOD_SECRET_name }}"
            for name, value in self.env.items()
            if _SECRET.search(name) and not value.startswith("{{ RUNPOD_SECRET_")
        )
        return found

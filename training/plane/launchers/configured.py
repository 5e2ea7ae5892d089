"""The launchers that a configuration names.

Owns which settings each launcher needs.
"""

import os
from collections.abc import Callable, Mapping

from runtime.remote.runpod import RunPod
from training.plane import machines
from training.plane.config import Config
from training.plane.database import Database
from training.plane.errors import ConfigurationError
from training.plane.launcher import Launcher
from training.plane.launchers.dstack import MOST_NAME_CHARACTERS, DstackLauncher
from training.plane.launchers.kubernetes import Cluster, KubernetesLauncher
from training.plane.launchers.process import SCRIPT, ProcessLauncher
from training.plane.launchers.runpod import Container, RunPodLauncher
from training.plane.machines import Machines

_NAME = "MARKET_TRAINING_"
_LONGEST_ATTEMPT = "-" + "0" * 26 + "-999"


def made(config: Config, store: Database) -> Machines:
    """The launchers of the plane. Raises ConfigurationError."""
    prefix = machines.prefix(store, config.name)
    names = _listed(config.launchers)
    if unknown := sorted(set(names) - set(_MAKERS)):
        raise ConfigurationError(f"{_NAME}LAUNCHERS: {unknown[0]!r} is none of {', '.join(_MAKERS)}")
    if not names:
        raise ConfigurationError(f"{_NAME}LAUNCHERS names no launcher")
    return Machines(prefix, {name: _MAKERS[name](config, prefix) for name in names})


def _memory() -> int:
    """Bytes of this computer's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _process(config: Config, prefix: str) -> Launcher:
    memory = config.machine_memory_bytes or _memory() * 3 // 4 // config.max_machines
    return ProcessLauncher(config.root / "machines", config.script or SCRIPT, config.min_free_bytes, memory)


def _runpod(config: Config, prefix: str) -> Launcher:
    if config.runpod_key is None:
        raise ConfigurationError(f"{_NAME}RUNPOD_KEY is needed for the launcher runpod")
    container = Container(config.image, config.disk_gb, config.runpod_registry, _listed(config.runpod_data_centers))
    api = RunPod(config.runpod_key.get_secret_value(), api=config.runpod_api, timeout=15.0)
    return RunPodLauncher(api, prefix, container)


def _kubernetes(config: Config, prefix: str) -> Launcher:
    cluster = Cluster(
        config.kubernetes_namespace,
        config.image,
        _listed(config.kubernetes_gpus),
        config.kubernetes_usd_per_hour,
        disk=f"{config.disk_gb}Gi",
    )
    authority = "" if config.kubernetes_ca_file == "system" else config.kubernetes_ca_file
    try:
        return KubernetesLauncher(
            config.kubernetes_api, config.kubernetes_token_file, cluster, prefix, authority=authority
        )
    except OSError as error:
        raise ConfigurationError(f"{_NAME}KUBERNETES_CA_FILE={authority}: {error}") from None


def _dstack(config: Config, prefix: str) -> Launcher:
    if not config.dstack_url or config.dstack_token is None:
        raise ConfigurationError(f"{_NAME}DSTACK_URL and _DSTACK_TOKEN are needed for the launcher dstack")
    if len(prefix) + len(_LONGEST_ATTEMPT) > MOST_NAME_CHARACTERS:
        raise ConfigurationError(f"{_NAME}NAME={config.name} is too long for dstack: at most 6 characters")
    token = config.dstack_token.get_secret_value()
    return DstackLauncher(config.dstack_url, token, config.dstack_project, config.image, config.disk_gb, prefix)


_MAKERS: Mapping[str, Callable[[Config, str], Launcher]] = {
    "process": _process,
    "runpod": _runpod,
    "kubernetes": _kubernetes,
    "dstack": _dstack,
}


def _listed(setting: str) -> tuple[str, ...]:
    return tuple(one.strip() for one in setting.split(",") if one.strip())

"""Memory limits of the shipped Kubernetes manifests, for processes of this machine, by Linux control groups.

Owns the reading of the limits from the manifests, and the groups. A group lies below the group of the current process,
so that the limits of both groups count. Version 2 of control groups needs a parent group with a delegated memory
controller, as under systemd; version 1 needs root.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import yaml

MANIFESTS = Path(__file__).resolve().parents[1] / "k8s" / "base"
_ROOT = Path("/sys/fs/cgroup")
_SUFFIXES = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
# The kernel takes a moment to empty a group after its last process.
_EMPTY_SECONDS = 60.0


class NoGroupsError(RuntimeError):
    """This process cannot make control groups with a memory limit; the message gives the reason."""


def shipped(service: str) -> int:
    """Bytes of the memory limit of a service's container in k8s/base."""
    for document in yaml.safe_load_all((MANIFESTS / f"{service}.yaml").read_text(encoding="utf-8")):
        if document["kind"] == "Deployment":
            [container] = document["spec"]["template"]["spec"]["containers"]
            limit = container["resources"]["limits"]["memory"]
            return int(limit[:-2]) * _SUFFIXES[limit[-2:]]
    raise ValueError(f"{service}.yaml has no Deployment")


@dataclass(frozen=True, slots=True)
class _Files:
    """The names of a group's files in one version of control groups."""

    limit: str
    swapped: str
    peak: str
    kills: str


_VERSIONS = {
    1: _Files(
        "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"
    ),
    2: _Files("memory.max", "memory.swap.max", "memory.peak", "memory.events"),
}


class MemoryGroup:
    """A control group with a memory limit, for one process. A context manager: removes the group after the process.

    Raises NoGroupsError.
    """

    def __init__(self, name: str, limit: int) -> None:
        version, parent = _parent()
        self._files = _VERSIONS[version]
        self.limit = limit
        self._folder = parent / f"market-inference-{name}-{os.getpid()}"
        try:
            self._folder.mkdir()
            (self._folder / self._files.limit).write_text(str(limit))
            # No swap, as on the nodes of a cluster. A kernel without a count of swapped memory has no such file.
            if (swapped := self._folder / self._files.swapped).exists():
                swapped.write_text(str(limit) if version == 1 else "0")
        except OSError as error:
            self.close()
            raise NoGroupsError(f"{self._folder}: {error.strerror}") from error

    def take(self, pid: int) -> None:
        """Move a process into the group. Memory from before the move counts in the previous group."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    @property
    def peak(self) -> int:
        """The most bytes so far, cached pages of files included."""
        return int((self._folder / self._files.peak).read_text())

    @property
    def kills(self) -> int:
        """The number of processes killed by the kernel for lack of memory."""
        lines = (self._folder / self._files.kills).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.split()[0] == "oom_kill")

    def close(self) -> None:
        until = time.monotonic() + _EMPTY_SECONDS
        while self._folder.exists():
            with suppress(OSError):
                self._folder.rmdir()
                return
            if time.monotonic() > until:
                raise RuntimeError(f"{self._folder} still has processes")
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parent() -> tuple[int, Path]:
    """The version, and the parent of new groups: the current process's group, or the nearest group above with the right
    to make groups with a memory limit.
    """
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise NoGroupsError("this system has no control groups") from error
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return 1, _ROOT / "memory" / path.lstrip("/")
    own = next((line.split(":", 2)[2] for line in lines if line.startswith("0::")), "/")
    for folder in ((_ROOT / own.lstrip("/")), *(_ROOT / own.lstrip("/")).parents):
        handed = folder / "cgroup.subtree_control"
        if handed.exists() and "memory" in handed.read_text().split() and os.access(folder, os.W_OK):
            return 2, folder
    raise NoGroupsError("no control group here hands its memory controller down to this user")

"""Machines that run one attempt each.

Owns the verbs that every launcher has. Each verb may be repeated: a machine is found again by the attempt's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Presence(StrEnum):
    """The result of a look at a machine."""

    ABSENT = "absent"
    PROVISIONING = "provisioning"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Seen:
    """A look at a machine. `exit_code` is known for some machines that have exited."""

    presence: Presence
    exit_code: int | None = None
    usd_per_hour: float = 0.0


@dataclass(frozen=True, slots=True)
class Offer:
    """An available kind of machine, and the price."""

    kind: str
    usd_per_hour: float


@dataclass(frozen=True, slots=True)
class PodSpec:
    """The environment of pod/run.sh on a machine. The environment holds a token; never log it."""

    environment: Mapping[str, str]


class LaunchError(Exception):
    """The machine could not be made now. Another try may do better."""


class Launcher(Protocol):
    """Makes, finds and ends machines."""

    def offers(self) -> list[Offer]:
        """Available kinds of machines, the cheapest first."""

    def launch(self, name: str, offer: Offer, pod: PodSpec) -> None:
        """Make the machine, or do nothing when a machine of this name runs. Raises LaunchError."""

    def look(self, name: str) -> Seen:
        """The machine as it is now."""

    def stop(self, name: str, *, now: bool) -> None:
        """Ask the machine to end, or end the machine by force. A machine that is absent is no error."""

    def mine(self) -> list[str]:
        """The names of all running machines of this plane."""

    def logs(self, name: str, most: int) -> bytes | None:
        """The last `most` bytes of the machine's log; None when there is none to be had."""

    def forget(self, name: str) -> None:
        """Delete the remains of a machine that is gone."""

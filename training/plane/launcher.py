"""Machines that run one attempt each.

Owns the verbs that every launcher has, and the errors of a launch. Each verb may be repeated: a machine is found again
by the attempt's name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Presence(StrEnum):
    """The result of a look at a machine."""

    ABSENT = "absent"
    PROVISIONING = "provisioning"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Handle:
    """A machine. `name` is the attempt's, `id` the platform's own, empty until the platform has told the id."""

    name: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A look at a machine. `exit_code` is known for some machines that have exited.

    `usd_per_hour` is None where the platform names no price. `hidden_seconds`: how long after a launch a machine may be
    missing from looks.
    """

    presence: Presence
    exit_code: int | None = None
    usd_per_hour: float | None = None
    id: str = ""
    hidden_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """The machine that a recipe asks for. `gpus`: acceptable types, the preferred first; empty for any type."""

    gpus: Sequence[str] = ()
    count: int = 1
    memory_gb: int = 0
    max_usd_per_hour: float | None = None


ANY = Wanted()


@dataclass(frozen=True, slots=True)
class Offer:
    """An available kind of machine, and the price of one machine in USD per hour."""

    kind: str
    usd_per_hour: float


@dataclass(frozen=True, slots=True)
class PodSpec:
    """What runs on a machine: pod/run.sh with an environment. The environment holds a token; never log it.

    For platforms that end machines by themselves: `seconds` is the longest life of the machine from its request on,
    `run_seconds` from its start on.
    """

    environment: Mapping[str, str] = field(repr=False)
    seconds: float
    run_seconds: float
    wanted: Wanted = ANY


@dataclass(frozen=True, slots=True)
class Made:
    """A machine that the platform has confirmed."""

    id: str = ""
    usd_per_hour: float | None = None


class LaunchError(Exception):
    """No machine was made. The same launch may succeed later, after `retry_after` seconds where given."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OfferRefusedError(LaunchError):
    """The platform has no machine of this offer now. Another offer may do."""


class LaunchImpossibleError(LaunchError):
    """No launch of this account or of this kind of request succeeds until a person changes something."""


class AnswerLostError(LaunchError):
    """No answer came: the machine may have been made. A look finds the machine by its name."""


class LauncherAwayError(Exception):
    """The platform does not answer now, so nothing is known about its machines."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Launcher(Protocol):
    """Offers, makes, finds and ends machines. Every verb but launch() may raise LauncherAwayError."""

    def offers(self, wanted: Wanted) -> list[Offer]:
        """Kinds of machines that fit, the best first: in the order of `wanted.gpus`, then by price."""

    def launch(self, name: str, offer: Offer, pod: PodSpec) -> Made:
        """Make the machine, or be content with one of this name where names are unique. Raises LaunchError."""

    def look(self, machine: Handle) -> Seen:
        """The machine as it is now."""

    def stop(self, machine: Handle, *, now: bool) -> None:
        """Ask the machine to end, or end the machine by force. A machine that is absent is no error."""

    def mine(self) -> list[Handle]:
        """All machines whose names begin like this plane's."""

    def logs(self, machine: Handle, most: int) -> bytes | None:
        """The last `most` bytes of the machine's log; None when there is none to be had."""

    def forget(self, machine: Handle) -> None:
        """Delete the remains of a machine that is gone; by default nothing remains."""
        return

    def bill(self, machine: Handle, since: float, until: float) -> float | None:
        """USD billed for the machine between two Unix times; None, the default, where the platform sends no bill."""
        return None


def fitting(offers: Sequence[Offer], wanted: Wanted) -> list[Offer]:
    """The offers within the wanted price: in the order of the wanted types, the cheapest first without an order."""
    most = wanted.max_usd_per_hour
    cheap = [offer for offer in offers if most is None or offer.usd_per_hour <= most]
    if not wanted.gpus:
        return sorted(cheap, key=lambda offer: offer.usd_per_hour)
    places = {gpu: place for place, gpu in enumerate(wanted.gpus)}
    return sorted((offer for offer in cheap if offer.kind in places), key=lambda offer: places[offer.kind])

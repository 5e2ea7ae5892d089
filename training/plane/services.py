"""The parts of one worker of the plane, for routes and loops."""

import os
import socket
from dataclasses import dataclass, field

from gateway.access.auth import Authenticator
from training.plane.clock import Clock
from training.plane.config import Config
from training.plane.database import Database
from training.plane.machines import Machines
from training.plane.objects import Objects
from training.plane.publisher import Publisher
from training.plane.rates import Rates
from training.plane.signature import Signer
from training.plane.slow import Quick, Slow


@dataclass(frozen=True, slots=True)
class Services:
    """Made once by build.py; tests make their own."""

    config: Config
    store: Database
    objects: Objects
    signer: Signer
    authenticator: Authenticator
    machines: Machines
    clock: Clock
    publisher: Publisher | None = None
    quick: Quick = field(default_factory=Quick)
    slow: Slow = field(default_factory=Slow)
    rates: Rates = field(default_factory=Rates)


def worker_name() -> str:
    """The name of this process in leases and logs."""
    return f"{socket.gethostname()[:40]}-{os.getpid()}"

"""Checks of a job before its creation: no machine is rented for a job without a chance.

Owns the checks and the order of the checks. All checks run: one answer names every problem.
"""

import ipaddress
import os
import re
import socket
import urllib.parse
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.remote.http import Http, RemoteError
from training.plane import budget, estimate
from training.plane.config import Config
from training.plane.database import Database
from training.plane.errors import PlaneError, UnavailableError, Violation
from training.plane.estimate import Estimate
from training.plane.launcher import Launcher, LauncherAwayError, Offer, Wanted
from training.recipes import recipe as recipes
from training.recipes.recipe import AnyRecipe

# Machines of these launchers are on the public internet.
OUTSIDE: Final = frozenset({"runpod", "dstack"})
# Machines of this launcher are the plane's own computer.
HERE: Final = "process"
_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")
# Neither part begins with a point: `../name` is a folder beside the machine's.
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")
_REACH_SECONDS = 5.0


class PreflightError(PlaneError):
    """A check failed; no job was made."""

    status = 422
    reason = "PREFLIGHT_FAILED"


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `field` is the part of the request or the setting at fault."""

    field: str
    passed: bool
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """The checks, and the estimates of the fitting offers."""

    checks: Sequence[Check]
    estimates: Sequence[Estimate]

    @property
    def passed(self) -> bool:
        """Whether a job may be made."""
        return all(check.passed for check in self.checks)

    def require(self) -> None:
        """Raises PreflightError with each failed check."""
        failed = [check for check in self.checks if not check.passed]
        if failed:
            violations = [Violation(check.field, check.text) for check in failed]
            raise PreflightError("; ".join(f"{check.field}: {check.text}" for check in failed), *violations)


@dataclass(frozen=True, slots=True)
class Question:
    """A job before its creation. `rows` and `labels`: of the dataset, as far as its check has ended."""

    owner: str
    recipe: AnyRecipe
    wanted: Wanted
    rows: int
    launcher: str
    labels: Collection[str] = ()


def run(config: Config, store: Database, launcher: Launcher, asked: Question, now: float) -> Report:
    """All checks. Raises UnavailableError when the platform does not answer."""
    try:
        offers = launcher.offers(asked.wanted)
    except LauncherAwayError as error:
        raise UnavailableError(f"{asked.launcher} does not answer: {error}", retry_after=error.retry_after) from None
    with store.read() as connection:
        estimates = estimate.table(connection, asked.launcher, offers, asked.recipe, asked.rows)
        account = budget.account(connection, asked.owner, now, config.budget_usd)
    checks = [*_labels(asked), *_model(asked, config), _machine(offers, asked.wanted), *_money(estimates, account)]
    if asked.launcher != HERE:
        checks += [_image(config.image), *_address(config, asked.launcher)]
    return Report(checks, estimates)


def _labels(asked: Question) -> Iterator[Check]:
    if why := recipes.unfit(asked.recipe.model_dump(), asked.labels):
        yield Check("dataset", False, why)


def _model(asked: Question, config: Config) -> Iterator[Check]:
    """The recipe's base model: a rented machine has no folder of this computer.

    A folder must lie in one of the configured folders: the answer for any other one says nothing of this computer.
    """
    base = getattr(asked.recipe, "base", None)
    if base is None:
        return
    if asked.launcher == HERE:
        known = _is_offered(base, config.bases) if Path(base).is_absolute() else bool(_HUB_ID.fullmatch(base))
        why = f"{base!r} is no hub id, and no folder with a model in MARKET_TRAINING_BASES"
        yield Check("recipe.base", known, base if known else why)
        return
    if not _HUB_ID.fullmatch(base):
        yield Check(
            "recipe.base", False, f"{base!r} is no hub id, and rented machines have no folders of this computer"
        )
    elif not getattr(asked.recipe, "revision", ""):
        yield Check("recipe.revision", False, "name the hub's commit: a branch may change under the job")
    else:
        yield Check("recipe.base", True, base)


def _is_offered(base: str, bases: str) -> bool:
    """Whether the folder is there and lies in one of the bases, as written and by its real path."""
    offered = [Path(os.path.normpath(one.strip())) for one in bases.split(",") if one.strip()]
    asked = Path(os.path.normpath(base))
    # The path as written is looked at first: no other folder of this computer is touched.
    if "\0" in base or not any(asked.is_relative_to(one) for one in offered):
        return False
    real = Path(os.path.realpath(asked))  # Path.resolve() raises RuntimeError for a loop of links
    return real.is_dir() and any(real.is_relative_to(os.path.realpath(one)) for one in offered)


def _machine(offers: Sequence[Offer], wanted: Wanted) -> Check:
    if offers:
        return Check("recipe.machine", True, ", ".join(offer.kind for offer in offers[:5]))
    limits = [f"{wanted.count} GPU(s)"]
    limits += [f"one of {', '.join(wanted.gpus)}"] if wanted.gpus else []
    limits += [f"at least {wanted.memory_gb} GB"] if wanted.memory_gb else []
    limits += [f"at most {wanted.max_usd_per_hour:g} USD an hour"] if wanted.max_usd_per_hour else []
    return Check("recipe.machine", False, f"no machine is offered now with {', '.join(limits)}")


def _money(estimates: Sequence[Estimate], account: budget.Account) -> Iterator[Check]:
    if not estimates:
        return
    least = min(one.usd_most for one in estimates)
    enough = least <= account.left
    text = f"at most {least:.2f} USD, and {account.left:.2f} of {account.limit:.2f} USD are left in {account.period}"
    advice = "" if enough else "; lower max_seconds or max_usd, or ask for a larger budget"
    yield Check("budget", enough, text + advice)


def _image(image: str) -> Check:
    if _DIGEST.fullmatch(image):
        return Check("MARKET_TRAINING_IMAGE", True, image)
    given = repr(image) if image else "no image"
    return Check("MARKET_TRAINING_IMAGE", False, f"{given}: name the image by digest, registry/name@sha256:...")


def _address(config: Config, launcher: str) -> Iterator[Check]:
    """The plane's address for machines: public and encrypted for machines on the internet, and answering."""
    field, url = "MARKET_TRAINING_PUBLIC_URL", config.url
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):  # UnicodeError: a name that DNS cannot have
        yield Check(field, False, f"{url}: the host has no address")
        return
    addresses = [ipaddress.ip_address(str(one).partition("%")[0]) for one in found]
    if launcher in OUTSIDE and not _on_loopback(config.runpod_api if launcher == "runpod" else config.dstack_url):
        for address in addresses:
            if not address.is_global:
                kind = "a loopback" if address.is_loopback else "a private"
                yield Check(field, False, f"{url} is {kind} address ({address}), which rented machines cannot reach")
                return
        if parts.scheme != "https":
            yield Check(field, False, f"{url}: rented machines send tokens, which need https")
            return
    try:
        Http({}, timeout=_REACH_SECONDS).exchange(f"{url}/health")
    except RemoteError as error:
        if error.status != 503:  # an unhealthy plane has answered
            yield Check(field, False, f"{url} does not answer: {error}")
            return
    yield Check(field, True, url)


def _on_loopback(url: str) -> bool:
    """Whether the platform is a process of this computer, whose machines are on this computer too."""
    try:
        return ipaddress.ip_address(urllib.parse.urlsplit(url).hostname or "").is_loopback
    except ValueError:
        return False

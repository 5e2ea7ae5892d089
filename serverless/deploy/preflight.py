"""Checks before a deployment creates anything.

Owns the checks and the order of the checks. All checks run, so that one run reports every problem.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from serverless.deploy.api import Account, Api
from serverless.deploy.http import RemoteError, retried
from serverless.deploy.image import MODELS_LABEL, Image, ImageInfo, PrivateImageError, Registry, parse
from serverless.deploy.plan import POOLS, Plan

Outcome = Literal["ok", "warning", "failed"]
# Compressed size above which the pull dominates a cold start on a new host.
LARGE_BYTES = 10 * 1000**3


@dataclass(frozen=True, slots=True)
class Check:
    outcome: Outcome
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """The checks' results, and the account and prices read on the way (None and empty without an API answer)."""

    checks: list[Check]
    account: Account | None
    prices: Mapping[str, float]

    @property
    def passed(self) -> bool:
        return all(check.outcome != "failed" for check in self.checks)


def run(plan: Plan, api: Api | None, registry: Registry | None) -> Report:
    """Run all checks. `api`: None without a key. `registry`: None if the image's name does not parse."""
    checks = [Check("failed", "plan", problem) for problem in plan.problems()]
    checks.extend(_image_name(plan))
    if registry is not None:
        checks.extend(_image(registry))
    if api is None:
        checks.append(Check("failed", "key", "set RUNPOD_API_KEY (console: Settings, API Keys)"))
        return Report(checks, None, {})
    try:
        account = retried(api.account)
        prices = retried(api.hourly_prices)
    except RemoteError as error:
        checks.append(Check("failed", "key", str(error)))
        return Report(checks, None, {})
    checks.append(Check("ok", "key", "accepted"))
    checks.extend(_gpu(plan, prices))
    return Report(checks, account, prices)


def _image_name(plan: Plan) -> Iterator[Check]:
    try:
        image = parse(plan.image)
    except ValueError as error:
        yield Check("failed", "image", str(error))
        return
    yield _pinned(image)


def _pinned(image: Image) -> Check:
    if image.pinned:
        return Check("ok", "image", f"pinned to {image.reference}")
    return Check("warning", "image", "names no version: workers that start later may run another one")


def _image(registry: Registry) -> Iterator[Check]:
    try:
        info = registry.inspect()
    except PrivateImageError as error:
        yield Check("warning", "registry", f"{error}: size and models stay unchecked; RunPod needs --registry-auth")
        return
    except RemoteError as error:
        yield Check("failed", "registry", str(error))
        return
    yield from _content(info)


def _content(info: ImageInfo) -> Iterator[Check]:
    size = f"{info.size / 1000**3:.1f} GB compressed"
    large = info.size > LARGE_BYTES
    yield Check("warning" if large else "ok", "size", f"{size}; a cold start pulls it all" if large else size)
    if info.platform != "linux/amd64":
        yield Check("failed", "platform", f"{info.platform}, and RunPod runs linux/amd64")
    if models := info.labels.get(MODELS_LABEL):
        yield Check("ok", "models", f"in the image: {models}")
    else:
        yield Check("warning", "models", f"no label {MODELS_LABEL}: a cold start may download them")


def _gpu(plan: Plan, prices: Mapping[str, float]) -> Iterator[Check]:
    known = [gpu for gpu in POOLS.get(plan.gpu, ()) if gpu in prices]
    if known:
        yield Check("ok", "GPU", f"{plan.gpu}: {', '.join(known)}")
    elif plan.gpu in POOLS:
        yield Check("failed", "GPU", f"RunPod lists none of {plan.gpu}: {', '.join(POOLS[plan.gpu])}")

"""Checks before a deployment creates anything.

Owns the checks and the order of the checks. All checks run, so that one run reports every problem.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from runtime.remote.http import RemoteError, retried
from runtime.remote.runpod import Gpu, RunPod
from serverless.deploy.image import MODELS_LABEL, Image, ImageInfo, ImageRegistry, PrivateImageError, parse
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
    """The checks' results, and the GPU catalog read on the way (empty without an API answer)."""

    checks: list[Check]
    gpus: Sequence[Gpu]

    @property
    def passed(self) -> bool:
        return all(check.outcome != "failed" for check in self.checks)


def run(plan: Plan, api: RunPod | None, registry: ImageRegistry | None) -> Report:
    """Run all checks. `api`: None without a key. `registry`: None if the image's name does not parse."""
    checks = [Check("failed", "plan", problem) for problem in plan.problems()]
    checks.extend(_image_name(plan))
    if registry is not None:
        checks.extend(_image(registry))
    if api is None:
        checks.append(Check("failed", "key", "set RUNPOD_API_KEY (console: Settings, API Keys)"))
        return Report(checks, ())
    try:
        gpus = retried(lambda: api.gpus("SERVERLESS"))
    except RemoteError as error:
        checks.append(Check("failed", "key", str(error)))
        return Report(checks, ())
    checks.append(Check("ok", "key", "accepted"))
    checks.extend(_gpu(plan, gpus))
    return Report(checks, gpus)


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


def _image(registry: ImageRegistry) -> Iterator[Check]:
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


def _gpu(plan: Plan, gpus: Sequence[Gpu]) -> Iterator[Check]:
    known = [gpu for gpu in gpus if gpu.pool == plan.gpu]
    names = ", ".join(gpu.id for gpu in known)
    if known and all(gpu.availability == "NONE" for gpu in known):
        yield Check("warning", "GPU", f"{plan.gpu}: {names}; none is free at present, jobs wait for one")
    elif known:
        yield Check("ok", "GPU", f"{plan.gpu}: {names}")
    elif plan.gpu in POOLS:
        yield Check("failed", "GPU", f"RunPod lists no GPU in the pool {plan.gpu}")

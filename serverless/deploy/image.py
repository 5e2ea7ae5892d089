"""Container images: names, and size, platform and labels as the registry reports them.

Owns the grammar of names (distribution/reference) and the registry's API (OCI distribution specification, pull).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.remote.http import Http, RemoteError, retried

# Label of Dockerfile.gpu that lists the models in the image; with models inside, a cold start downloads nothing.
MODELS_LABEL = "io.market-inference.models"

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(
    rf"(?:(?P<registry>(?:[A-Za-z0-9-]+\.)+[A-Za-z0-9-]+(?::\d+)?|[A-Za-z0-9-]+:\d+|localhost)/)?"
    rf"(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    rf"(?::(?P<tag>\w[\w.-]{{0,127}}))?(?:@(?P<digest>sha256:[0-9a-f]{{64}}))?"
)
_MANIFESTS = ", ".join(
    f"application/vnd.{kind}"
    for kind in (
        "oci.image.index.v1+json",
        "oci.image.manifest.v1+json",
        "docker.distribution.manifest.list.v2+json",
        "docker.distribution.manifest.v2+json",
    )
)


@dataclass(frozen=True, slots=True)
class Image:
    """A parsed name; `reference`: the digest, else the tag."""

    registry: str
    path: str
    reference: str

    @property
    def pinned(self) -> bool:
        return self.reference.startswith("sha256:") or self.reference not in {"", "latest"}


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """An image in a registry: compressed bytes, platform as os/architecture, labels."""

    size: int
    platform: str
    labels: Mapping[str, str]


class PrivateImageError(RemoteError):
    """The registry requires credentials for the image."""


def parse(name: str) -> Image:
    """Parse an image name. Raises ValueError with the reason."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no image name; one looks like docker.io/you/market-inference:0.1.0")
    registry, path = match["registry"] or "docker.io", match["path"]
    if registry == "docker.io" and "/" not in path:
        path = f"library/{path}"
    return Image(registry, path, match["digest"] or match["tag"] or "")


class ImageRegistry:
    """Reads public images. `base`: the registry's address, if other than https://<registry>."""

    def __init__(self, http: Http, image: Image, base: str = "") -> None:
        host = "registry-1.docker.io" if image.registry == "docker.io" else image.registry
        self._http = http
        self._base = f"{base or f'https://{host}'}/v2/{image.path}"
        self._image = image
        self._headers: dict[str, str] = {}

    def inspect(self) -> ImageInfo:
        """Read size, platform and labels. Raises PrivateImageError, or RemoteError if the image does not exist."""
        manifest = self._get(f"manifests/{self._image.reference or 'latest'}")
        if "manifests" in manifest:
            manifest = self._get(f"manifests/{_for_linux(manifest['manifests'])['digest']}")
        config = self._get(f"blobs/{manifest['config']['digest']}")
        size = sum(layer["size"] for layer in manifest["layers"])
        labels = config.get("config", {}).get("Labels") or {}
        return ImageInfo(size, f"{config.get('os')}/{config.get('architecture')}", labels)

    def _get(self, path: str) -> Any:
        try:
            return retried(
                lambda: self._http.json(f"{self._base}/{path}", headers=self._headers | {"Accept": _MANIFESTS})
            )
        except RemoteError as error:
            if error.status != 401 or self._headers:
                raise _explained(error) from None
            self._headers = {"Authorization": f"Bearer {self._token(error.__notes__[0])}"}
        return self._get(path)

    def _token(self, challenge: str) -> str:
        """An anonymous pull token from the address in the registry's challenge."""
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        if "realm" not in fields:
            raise PrivateImageError("the registry asks for credentials")
        query = f"service={fields.get('service', '')}&scope=repository:{self._image.path}:pull"
        try:
            answer = retried(lambda: self._http.json(f"{fields['realm']}?{query}"))
        except RemoteError as error:
            raise _explained(error) from None
        token: str = answer.get("token") or answer["access_token"]
        return token


def _explained(error: RemoteError) -> RemoteError:
    if error.status in {401, 403}:
        return PrivateImageError("the registry shows this image only with credentials, or has none of this name")
    return RemoteError("the registry has no such image", 404) if error.status == 404 else error


def _for_linux(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    for manifest in manifests:
        platform = manifest.get("platform", {})
        if (platform.get("os"), platform.get("architecture")) == ("linux", "amd64"):
            return manifest
    raise RemoteError("the image has no linux/amd64 variant, which RunPod runs")

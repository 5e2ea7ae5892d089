"""Every overlay, rendered by kubectl."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OVERLAYS = ("cpu", "dev", "gpu")


class Rendered:
    """The objects of one overlay."""

    def __init__(self, name: str, root: Path = ROOT) -> None:
        kubectl = Path(sys.executable).with_name("kubectl")
        done = subprocess.run(
            [kubectl, "kustomize", root / "k8s" / "overlays" / name],
            capture_output=True,
            text=True,
            check=False,
            timeout=250,
        )
        assert done.returncode == 0, done.stderr
        self.name = name
        self.objects: list[dict] = list(yaml.safe_load_all(done.stdout))

    def all(self, kind: str) -> list[dict]:
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str, name: str) -> dict:
        """The object of a name; the hash at the end of a generated name is ignored."""
        found = [o for o in self.all(kind) if o["metadata"]["name"] == name or o["metadata"]["name"][:-11] == name]
        assert len(found) == 1, f"{len(found)} of {kind} {name}"
        return found[0]

    def pod(self, part: str) -> dict:
        return self.one("Deployment", part)["spec"]["template"]["spec"]

    def container(self, part: str) -> dict:
        [container] = self.pod(part)["containers"]
        return container

    def environment(self, part: str) -> dict[str, str]:
        """The environment of the container's process."""
        container = self.container(part)
        assert "env" not in container
        [source] = container["envFrom"]
        [settings] = [o for o in self.all("ConfigMap") if o["metadata"]["name"] == source["configMapRef"]["name"]]
        return settings["data"]


@pytest.fixture(scope="session", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Rendered:
    return Rendered(request.param)


@pytest.fixture(scope="session")
def gpu() -> Rendered:
    return Rendered("gpu")

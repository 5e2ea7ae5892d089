"""Files that others may replace: whoever opens one neither waits for the writer of a FIFO nor reads a device."""

import os
import socket
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

import pytest

from edge.config import Config as EdgeConfig
from edge.server import ConfigurationError, Server
from gateway.access.tokens import KeySetError, Tokens
from market_inference.contract import keys, regular_file
from models import regular_file as models_regular_file
from models.manifest import Manifest, verified, verify
from models.model import ModelUnavailableError
from models.weights_version import weights_version
from runtime import tls
from tests.authority import Authority
from training.plane.launcher import Handle
from training.plane.launchers.process import ProcessLauncher
from training.plane.registry import FolderRegistry, RegistryError

pytestmark = pytest.mark.timeout(60)
BOTH = pytest.mark.parametrize("opened", [regular_file.opened, models_regular_file.opened], ids=["services", "models"])


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A FIFO without a writer, under the names that registries and models use."""
    os.mkfifo(tmp_path / "fifo")
    for name in ("manifest.json", "model.safetensors", "log"):
        (tmp_path / name).symlink_to("fifo")
    return tmp_path / "fifo"


@BOTH
def test_a_regular_file_is_read_also_by_a_link(opened: Callable[[Path], BufferedReader], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 1000)
    (tmp_path / "link").symlink_to("file")
    with opened(tmp_path / "link") as file:
        assert file.read() == bytes(range(256)) * 1000
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "none")


@BOTH
def test_anything_else_is_refused_and_closed(
    opened: Callable[[Path], BufferedReader], tmp_path: Path, fifo: Path
) -> None:
    free = os.dup(0)
    os.close(free)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path in (fifo, Path("/dev/zero"), tmp_path):
            with pytest.raises(OSError, match="not a regular file"):
                opened(path)
        with pytest.raises(OSError, match="No such device"):
            opened(tmp_path / "socket")
        assert listening.fileno() == free
    after = os.dup(0)
    os.close(after)
    assert after == free


def test_keys_and_certificates_are_regular_files(tmp_path: Path, fifo: Path) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        keys.read(fifo)
    good = Authority("ours").issue(tmp_path, "server")
    for files in (tls.Files(fifo, good["key"]), tls.Files(good["certificate"], fifo), tls.Files(ca=fifo)):
        for use in (tls.check, tls.channel):
            with pytest.raises(tls.TlsError, match="fifo: not a regular file"):
                use(files)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        Server(EdgeConfig(key_file=fifo, listen="127.0.0.1:0"))


async def test_a_key_set_is_a_regular_file(fifo: Path) -> None:
    with pytest.raises(KeySetError, match="not a regular file"):
        await Tokens(str(fifo), issuer="a", audience="b").start()


def test_manifests_and_weights_are_regular_files(tmp_path: Path, fifo: Path) -> None:
    for read in (
        lambda: Manifest.of(tmp_path),
        lambda: verified(fifo, "0" * 64),
        lambda: verify(fifo, "0" * 64),
    ):
        with pytest.raises(ModelUnavailableError, match="not a regular file"):
            read()
    with pytest.raises(OSError, match="not a regular file"):
        weights_version(str(tmp_path), None)


def test_the_training_plane_reads_regular_files(tmp_path: Path, fifo: Path) -> None:
    with pytest.raises(RegistryError, match="not a regular file"):
        FolderRegistry(tmp_path.parent).manifest(tmp_path.name)
    assert ProcessLauncher(tmp_path.parent).logs(Handle(tmp_path.name), 100) is None

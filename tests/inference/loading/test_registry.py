"""Models as folders: a new version is checked beside the old one and swapped in, or left out."""

import asyncio
import gc
import os
import shutil
import threading
import weakref
from pathlib import Path

import pytest

from inference.loading.catalog import Catalog, Slot
from inference.loading.folder import FolderSource
from inference.loading.registry import Registry
from inference.loading.source import Listing
from inference.status import Status, model_info
from market_inference.contract.errors import ServiceUnavailableError, UnknownModelError
from market_inference.contract.generated import inference_pb2
from models.manifest import Manifest
from models.model import ModelUnavailableError


class Versioned:
    name = "m"

    def __init__(self, version: str) -> None:
        self.version = version

    def check(self) -> None:
        if self.version == "bad":
            raise RuntimeError("the self-test differs")


@pytest.fixture
def catalog():
    return Catalog([Slot("e", "m", lambda: Versioned("1"), is_default=True)])


@pytest.fixture
def registry(catalog, tmp_path):
    return Registry(FolderSource(tmp_path), catalog, {"e": lambda manifest, folder: Versioned(manifest.version)})


def put(folder, version: str, *, name: str = "m", kind: str = "e") -> None:
    folder.mkdir(exist_ok=True)
    Manifest(kind, "any", name, version, "Apache-2.0", "float32", {"weights": "0" * 64}).write(folder)


async def test_a_new_version_is_swapped_in_and_the_old_one_freed(catalog, registry, tmp_path):
    old = weakref.ref(await catalog.get("e", "m"))
    put(tmp_path / "m", "2")
    await registry.scan()
    assert (await catalog.get("e", "m")).version == "2"
    gc.collect()
    assert old() is None


@pytest.fixture
async def serving(catalog):
    """The catalog with its default loaded."""
    await catalog.load_defaults()
    return catalog


async def test_a_version_that_fails_its_self_test_leaves_the_one_before(catalog, registry, tmp_path):
    before = await catalog.get("e", "m")
    put(tmp_path / "m", "bad")
    await registry.scan()
    assert await catalog.get("e", "m") is before
    put(tmp_path / "m", "3")
    await registry.scan()
    assert (await catalog.get("e", "m")).version == "3"


async def test_an_unchanged_folder_is_not_loaded_again(catalog, registry, tmp_path):
    put(tmp_path / "m", "2")
    await registry.scan()
    first = await catalog.get("e", "m")
    await registry.scan()
    assert await catalog.get("e", "m") is first


async def test_a_listing_without_an_end_is_a_failure_of_the_watcher_and_keeps_one_thread(catalog, monkeypatch):
    """As of a bucket that answers a byte in 20 seconds, or a folder of a server that is away."""

    class Hanging:
        listings = 0
        end = threading.Event()

        def listed(self) -> Listing:
            self.listings += 1
            self.end.wait()
            return Listing({"m": Manifest("e", "any", "m", "2", "Apache-2.0", "float32", {}).text().encode()})

        def fetch(self, name: str, manifest: Manifest) -> Path:
            return Path(name)

    source = Hanging()
    registry = Registry(source, catalog, {"e": lambda manifest, folder: Versioned(manifest.version)})
    watcher = registry.watcher(1.0)
    monkeypatch.setattr("inference.loading.registry.LIST_SECONDS", 0.01)
    for _ in range(2):
        await watcher.look()
        assert watcher.failure == "the registry did not list its models within 0.01 s"
    assert source.listings == 1
    source.end.set()
    monkeypatch.setattr("inference.loading.registry.LIST_SECONDS", 60.0)
    await watcher.look()
    assert not watcher.failure
    assert (await catalog.get("e", "m")).version == "2"


@pytest.mark.timeout(60)
async def test_a_fifo_for_a_manifest_concerns_its_folder_alone(serving, registry, tmp_path):
    """The listing waited for a writer: no model was seen any more, and none forgotten."""
    put(tmp_path / "m", "2")
    await registry.scan()
    (tmp_path / "m" / "manifest.json").unlink()
    os.mkfifo(tmp_path / "m" / "manifest.json")
    put(tmp_path / "other", "1", name="other")
    watcher = registry.watcher(1.0)
    await watcher.look()
    assert watcher.failure == "m: manifest.json cannot be read: not a regular file"
    assert (await serving.get("e", "m")).version == "2"
    assert (await serving.get("e", "other")).version == "1"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (b"self", "self: manifest.json cannot be read: Too many levels of symbolic links"),
        (
            b"bad\xff",
            r"bad\udcff: manifest.json of 'bad\udcff' is malformed: files.\x1b[31m: Input should be a valid string",
        ),
        (b"a\x1b[31m\nb", r"a\x1b[31m\nb: manifest.json of 'a\x1b[31m\nb' is malformed: files.\x1b[31m: Input"),
    ],
)
async def test_a_folder_of_an_odd_name_concerns_itself_alone(serving, registry, tmp_path, name, told):
    """A loop of links stopped every scan; a name that is no UTF-8 left calls and the status without an answer."""
    folder = tmp_path / os.fsdecode(name)
    if name == b"self":
        folder.symlink_to("self")
    else:
        put(folder, "1")
        manifest = folder / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"weights": "' + "0" * 64 + '"', r'"\u001b[31m": 1'))
    put(tmp_path / "m", "2")
    watcher = registry.watcher(1.0)
    await watcher.look()
    assert (await serving.get("e", "m")).version == "2"
    with pytest.raises(UnknownModelError) as refused:
        serving.slot("e", "nosuch")
    other = Registry(FolderSource(tmp_path), empty := Catalog([]), {})
    await other.scan()
    replica = await Status(empty, {}, lambda: None, name="r", version="1").probe()
    for text in (refused.value.status("").message, replica.message):
        assert told in text
        assert text.isprintable()


async def test_a_folder_with_a_new_name_is_a_new_model_and_nonsense_is_passed_over(catalog, registry, tmp_path):
    put(tmp_path / "other", "1", name="other")
    put(tmp_path / "odd", "1", kind="astrology")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{", encoding="utf-8")
    await registry.scan()
    assert (await catalog.get("e", "other")).version == "1"
    assert {slot.name for slot in catalog} == {"m", "other"}


async def test_requests_never_miss_the_model_while_it_is_swapped(catalog):
    loop = asyncio.get_running_loop()
    started, go = asyncio.Event(), asyncio.Event()

    def slow():
        loop.call_soon_threadsafe(started.set)
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result(60)
        return Versioned("2")

    before = await catalog.get("e", "m")
    swap = asyncio.create_task(catalog.replace("e", "m", slow))
    await started.wait()
    assert await catalog.get("e", "m") is before
    go.set()
    await swap
    assert (await catalog.get("e", "m")).version == "2"


async def test_a_failed_replacement_says_why(catalog):
    def missing():
        raise ModelUnavailableError("no such file")

    await catalog.get("e", "m")
    with pytest.raises(ServiceUnavailableError, match="was not replaced: no such file"):
        await catalog.replace("e", "m", missing)
    assert (await catalog.get("e", "m")).version == "1"


async def test_idle_models_are_unloaded_and_defaults_stay(catalog):
    await catalog.get("e", "m")
    await catalog.replace("e", "extra", lambda: Versioned("1"))
    catalog.slot("e", "extra").used -= 100
    catalog.slot("e", "m").used -= 100
    catalog.unload_idle(50)
    assert catalog.slot("e", "extra").model is None
    assert catalog.slot("e", "m").model is not None
    assert (await catalog.get("e", "extra")).version == "1"


async def test_a_failed_replacement_of_an_unloaded_model_leaves_it_as_it_was(catalog):
    def missing():
        raise ModelUnavailableError("hash differs")

    with pytest.raises(ServiceUnavailableError, match="was not replaced"):
        await catalog.replace("e", "m", missing)
    assert (await catalog.get("e", "m")).version == "1"


async def test_a_model_that_could_not_be_loaded_is_tried_again_at_the_next_scan(catalog, tmp_path):
    loads = []

    def load(manifest, folder):
        loads.append(1)
        if len(loads) == 1:
            raise ModelUnavailableError("no memory now")
        return Versioned(manifest.version)

    registry = Registry(FolderSource(tmp_path), catalog, {"e": load})
    put(tmp_path / "m", "2")
    await registry.scan()
    await registry.scan()
    await registry.scan()
    assert (await catalog.get("e", "m")).version == "2"
    assert len(loads) == 2


GARBAGE = [b"{", b"\xff", b"", b"null", b"[" * 100_000, b'{"name": ["x"]}', b'{"name": 5}', b" " * (2 << 20)]


async def test_the_watcher_of_models_survives_garbage_and_takes_the_next_good_model(catalog, registry, tmp_path):
    """B11: a manifest with `"name": ["x"]`, and 100,000 brackets."""
    watcher = registry.watcher(1.0)
    for place, content in enumerate(GARBAGE):
        folder = tmp_path / f"bad{place}"
        folder.mkdir()
        (folder / "manifest.json").write_bytes(content)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "manifest.json").mkdir()
    put(tmp_path / "good", "1", name="good")
    await watcher.look()
    assert watcher.failures == 1
    for place in range(len(GARBAGE)):
        assert f"bad{place}: " in watcher.failure
    assert "odd: manifest.json cannot be read" in watcher.failure
    assert (await catalog.get("e", "good")).version == "1"
    listed = Status(catalog, {}, lambda: None, name="r", version="1").models()
    assert {model.name for model in listed} == {"m", "good"}
    for place in range(len(GARBAGE)):
        put(tmp_path / f"bad{place}", "2", name=f"good{place}")
    shutil.rmtree(tmp_path / "odd")
    put(tmp_path / "good", "2", name="good")
    await watcher.look()
    assert watcher.failure == ""
    assert (await catalog.get("e", "good")).version == "2"
    assert (await catalog.get("e", "good3")).version == "2"


async def test_a_fault_of_the_registry_is_counted_at_each_scan_and_logged_when_it_begins_changes_and_ends(
    serving, registry, tmp_path, caplog
):
    caplog.set_level("INFO", "runtime.watcher")
    watcher = registry.watcher(1.0)

    async def logged():
        caplog.clear()
        for _ in range(3):
            await watcher.look()
        return [(record.message, record.fields.get("reason")) for record in caplog.records]

    put(tmp_path / "odd", "1", kind="astrology")
    malformed = "odd: its kind 'astrology' is none of e"
    assert await logged() == [("watcher failed", malformed)]
    assert watcher.failures == 3
    put(tmp_path / "m", "bad")
    failed = "the e model 'm' was not replaced: it failed to load (RuntimeError); the service's log says why"
    lines = [("model unavailable", failed.partition(": ")[2]), ("watcher failed", f"m: {failed}; {malformed}")]
    assert await logged() == lines
    assert watcher.failures == 6
    shutil.rmtree(tmp_path / "odd")
    assert await logged() == [("watcher failed", f"m: {failed}")]
    put(tmp_path / "m", "2")
    assert (await logged()).count(("watcher works again", None)) == 1


async def test_a_model_that_is_unavailable_is_logged_once_by_the_watcher(serving, tmp_path, caplog):
    def missing(manifest, folder):
        raise ModelUnavailableError("no such file")

    watcher = Registry(FolderSource(tmp_path), serving, {"e": missing}).watcher(1.0)
    put(tmp_path / "m", "2")
    for _ in range(3):
        await watcher.look()
    (line,) = caplog.records
    assert line.fields == {"watcher": "models", "reason": "m: the e model 'm' was not replaced: no such file"}


async def test_a_request_for_a_refused_model_says_why_until_the_manifest_is_corrected(catalog, registry, tmp_path):
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "manifest.json").write_text('{"kind": "e", "architecture": "any", "name": "d"}')
    put(tmp_path / "odd", "1", kind="astrology")
    await registry.scan()
    needed = "; ".join(f"{member}: Field required" for member in ("version", "licence", "dtype", "files"))
    missing = f"manifest.json of 'desk' is malformed: {needed}"
    with pytest.raises(UnknownModelError) as refused:
        catalog.slot("e", "desk")
    told = f"model: no e model named 'desk'; there are: m; not taken from the registry: desk: {missing}"
    assert refused.value.message == told
    with pytest.raises(UnknownModelError) as refused:
        catalog.slot("e", "d")  # the folder has another name than the model
    assert refused.value.message.endswith(f"registry: desk: {missing}; odd: its kind 'astrology' is none of e")
    put(tmp_path / "desk", "1", name="desk")
    put(tmp_path / "odd", "1", name="odd")
    await registry.scan()
    assert catalog.slot("e", "desk").name == "desk"
    with pytest.raises(UnknownModelError, match=r"there are: m, desk, odd$"):
        catalog.slot("e", "d")


async def test_the_status_names_refused_folders_until_they_are_gone(tmp_path):
    catalog = Catalog([])
    registry = Registry(FolderSource(tmp_path), catalog, {"e": lambda manifest, folder: Versioned(manifest.version)})
    status = Status(catalog, {}, lambda: None, name="r", version="1")
    put(tmp_path / "odd", "1", kind="astrology")
    await registry.scan()
    replica = await status.probe()
    assert replica.message == "not taken from the registry: odd: its kind 'astrology' is none of e"
    assert replica.health == inference_pb2.HEALTH_HEALTHY
    shutil.rmtree(tmp_path / "odd")
    await registry.scan()
    assert (await status.probe()).message == ""


async def test_a_model_is_known_before_it_is_loaded_and_loads_on_first_use(catalog, tmp_path):
    loads = []
    registry = Registry(
        FolderSource(tmp_path),
        catalog,
        {"e": lambda manifest, folder: loads.append(manifest.name) or Versioned(manifest.version)},
    )
    for number in range(100):
        put(tmp_path / f"symbol{number}", "1", name=f"symbol{number}")
    await registry.scan()
    assert loads == []
    states = {model.name: model.state for model in Status(catalog, {}, lambda: None, name="r", version="1").models()}
    assert states["symbol7"] == inference_pb2.MODEL_STATE_AVAILABLE
    assert (await catalog.get("e", "symbol7")).version == "1"
    put(tmp_path / "symbol7", "2", name="symbol7")
    put(tmp_path / "symbol8", "2", name="symbol8")
    await registry.scan()
    assert loads == ["symbol7", "symbol7"]
    assert (await catalog.get("e", "symbol8")).version == "2"


async def test_a_removed_model_is_unloaded_and_forgotten_after_two_scans_without_it(catalog, registry, tmp_path):
    put(tmp_path / "other", "1", name="other")
    await registry.scan()
    loaded = weakref.ref(await catalog.get("e", "other"))
    shutil.rmtree(tmp_path / "other")
    await registry.scan()
    assert catalog.slot("e", "other").model is loaded()
    await registry.scan()
    with pytest.raises(UnknownModelError):
        await catalog.get("e", "other")
    gc.collect()
    assert loaded() is None


async def test_a_model_that_takes_the_name_of_the_configured_one_is_told(serving, registry, tmp_path, caplog):
    """Also with a lower version: the registry does not compare versions."""
    put(tmp_path / "m", "0")
    await registry.scan()
    (line,) = [record for record in caplog.records if "replaces the configured one" in record.message]
    assert line.levelname == "WARNING"
    assert line.fields == {"engine": "e", "model": "m", "version": "0", "replaced": "1"}
    (info,) = [model_info(slot) for slot in serving]
    assert (info.version, info.message) == ("0", "of the registry, in place of the configured version 1")
    put(tmp_path / "m", "2")  # the second version of the registry replaces no configured one
    await registry.scan()
    assert len([record for record in caplog.records if "replaces the configured one" in record.message]) == 1
    assert [model_info(slot).message for slot in serving] == ["of the registry, in place of the configured version 1"]
    shutil.rmtree(tmp_path / "m")
    await registry.scan()
    await registry.scan()
    assert [(model_info(slot).version, model_info(slot).message) for slot in serving] == [("1", "")]


async def test_a_configured_model_that_is_not_loaded_is_replaced_with_a_word_too(registry, catalog, tmp_path, caplog):
    catalog._slots["e", "other"] = Slot("e", "other", lambda: Versioned("1"))
    put(tmp_path / "other", "2", name="other")
    await registry.scan()
    assert [record.fields["model"] for record in caplog.records if "replaces" in record.message] == ["other"]
    assert model_info(catalog.slot("e", "other")).message.startswith("of the registry, in place of")


async def test_the_configured_model_returns_when_the_registrys_is_removed(serving, registry, tmp_path):
    put(tmp_path / "m", "2")
    await registry.scan()
    assert (await serving.get("e", "m")).version == "2"
    shutil.rmtree(tmp_path / "m")
    await registry.scan()
    await registry.scan()
    assert (await serving.get("e", "m")).version == "1"
    assert serving.default("e").model.version == "1"


async def test_two_folders_with_one_name_are_an_error_and_the_model_in_use_stays(serving, registry, tmp_path):
    watcher = registry.watcher(1.0)
    put(tmp_path / "minilm-9", "9")
    await watcher.look()
    put(tmp_path / "minilm-10", "10")
    for _ in range(3):
        await watcher.look()
        assert "minilm-9: the model 'm' is in 'minilm-10', too" in watcher.failure
        assert "minilm-10: the model 'm' is in 'minilm-9', too" in watcher.failure
        assert (await serving.get("e", "m")).version == "9"
    shutil.rmtree(tmp_path / "minilm-9")
    await watcher.look()
    assert watcher.failure == ""
    assert (await serving.get("e", "m")).version == "10"


async def test_a_registry_that_is_away_takes_no_model_away(serving, registry, tmp_path):
    watcher = registry.watcher(1.0)
    put(tmp_path / "m", "2")
    await watcher.look()
    tmp_path.rename(tmp_path.with_name("elsewhere"))
    for _ in range(3):
        await watcher.look()
        assert "registry folder cannot be listed" in watcher.failure
    assert (await serving.get("e", "m")).version == "2"


async def test_a_link_that_moves_swaps_versions_and_a_model_loads_from_one_version_to_the_end(serving, tmp_path):
    folders = []
    registry = Registry(
        FolderSource(tmp_path),
        serving,
        {"e": lambda manifest, folder: folders.append(folder) or Versioned(manifest.version)},
    )
    for version in "23":
        (tmp_path / ".versions" / version).mkdir(parents=True)
        put(tmp_path / ".versions" / version, version)
        (tmp_path / "next").symlink_to(Path(".versions", version))
        (tmp_path / "next").replace(tmp_path / "m")
        await registry.scan()
        assert (await serving.get("e", "m")).version == version
    assert [folder.name for folder in folders] == ["2", "3"]


async def test_a_missing_folder_is_no_failure(catalog, tmp_path):
    watcher = Registry(FolderSource(tmp_path / "later"), catalog, {}).watcher(1.0)
    await watcher.look()
    assert watcher.failure == ""

"""Models as folders: a new version is checked beside the old one and swapped in, or left out."""

import asyncio
import gc
import weakref

import pytest

from inference.loading.catalog import Catalog, Slot
from inference.loading.registry import Registry
from market_inference.contract.errors import ServiceUnavailableError
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
    return Registry(tmp_path, catalog, {"e": lambda manifest, folder: Versioned(manifest.version)})


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
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result(10)
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

    registry = Registry(tmp_path, catalog, {"e": load})
    put(tmp_path / "m", "2")
    await registry.scan()
    await registry.scan()
    await registry.scan()
    assert (await catalog.get("e", "m")).version == "2"
    assert len(loads) == 2

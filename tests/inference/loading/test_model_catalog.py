"""A model that fails to load degrades only its own calls."""

import asyncio
import gc
import json
import sys
import threading
from types import ModuleType

import pytest
from tokenizers import Tokenizer

from inference.loading.catalog import Catalog, Slot
from market_inference.contract.errors import ServiceUnavailableError, UnknownModelError
from models.model import ModelUnavailableError
from tests.eventually import eventually_async


def unavailable():
    raise ModelUnavailableError("install chronos")


def broken():
    raise ZeroDivisionError("/secret/path")


async def test_models_load_once_however_many_ask(model):
    loads = []
    catalog = Catalog([Slot("e", "m", lambda: loads.append(1) or model, is_default=True)])
    found = await asyncio.gather(*(catalog.get("e", name) for name in ("", "m", "", "m")))
    assert found == [model] * 4
    assert len(loads) == 1


async def test_a_model_that_cannot_load_is_unavailable_and_the_others_serve(model):
    catalog = Catalog([Slot("e", "good", lambda: model, is_default=True), Slot("e", "bad", unavailable)])
    with pytest.raises(ServiceUnavailableError, match=r"install chronos") as caught:
        await catalog.get("e", "bad")
    assert caught.value.retry_after > 0
    assert await catalog.get("e", "good") is model


async def test_an_unexpected_failure_to_load_tells_the_caller_nothing_internal(caplog):
    catalog = Catalog([Slot("e", "bad", broken, is_default=True)])
    with pytest.raises(ServiceUnavailableError) as caught:
        await catalog.get("e", "")
    assert "/secret/path" not in caught.value.message
    assert "/secret/path" in caplog.text


def panicking():
    """A panic of the tokenisers' library, no Exception."""
    Tokenizer.from_str(json.dumps({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}))


def ending():
    sys.exit("no GPU here")


@pytest.mark.parametrize("load", [panicking, ending])
async def test_a_load_that_ends_its_thread_has_failed_at_once(load, model, caplog):
    slot = Slot("e", "bad", load)
    catalog = Catalog([slot, Slot("e", "good", lambda: model, is_default=True)])
    with pytest.raises(ServiceUnavailableError, match="failed to load"):
        await asyncio.wait_for(catalog.get("e", "bad"), 60)
    assert "Cannot parse precompiled_charsmap" in caplog.text or "no GPU here" in caplog.text
    assert await catalog.get("e", "good") is model
    slot.load, slot.retry_at = lambda: model, 0.0
    assert await catalog.get("e", "bad") is model


async def test_a_model_whose_self_test_fails_never_serves(model):
    model.run = lambda items: [0]
    catalog = Catalog([Slot("e", "m", lambda: model, is_default=True)])
    with pytest.raises(ServiceUnavailableError):
        await catalog.get("e", "m")


async def test_a_failed_model_is_tried_again_only_after_a_while(model):
    loads = []

    def flaky():
        loads.append(1)
        if len(loads) == 1:
            raise ModelUnavailableError("not yet")
        return model

    catalog = Catalog([Slot("e", "m", flaky, is_default=True)])
    for _ in range(3):
        with pytest.raises(ServiceUnavailableError):
            await catalog.get("e", "m")
    assert len(loads) == 1
    catalog.slot("e", "m").retry_at = 0
    assert await catalog.get("e", "m") is model


async def test_an_unknown_model_names_those_that_are_known(model):
    catalog = Catalog([Slot("e", "m", lambda: model, is_default=True)])
    with pytest.raises(UnknownModelError, match="no e model named 'x'; there are: m"):
        await catalog.get("e", "x")


async def test_a_caller_that_goes_away_does_not_stop_the_loading_for_others(model):
    started, go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow():
        loop.call_soon_threadsafe(started.set)
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result(60)
        return model

    catalog = Catalog([Slot("e", "m", slow, is_default=True)])
    first, second = (asyncio.create_task(catalog.get("e", "m")) for _ in range(2))
    await started.wait()
    first.cancel()
    go.set()
    assert await second is model


async def test_a_model_that_hangs_while_loading_has_failed_after_a_while_and_is_not_joined_by_another(model):
    gate, loads = threading.Event(), []

    def hang():
        loads.append(1)
        gate.wait(60)
        return model

    slot = Slot("e", "slow", hang)
    catalog = Catalog([Slot("e", "good", lambda: model, is_default=True), slot], load_seconds=0.05)
    try:
        with pytest.raises(ServiceUnavailableError, match=r"not loaded within 0\.05 s"):
            await catalog.get("e", "slow")
        catalog._load_seconds = 60.0  # a good load may take a while on a busy machine
        assert await catalog.get("e", "good") is model
        slot.retry_at = 0.0
        with pytest.raises(ServiceUnavailableError, match="earlier load still hangs"):
            await catalog.get("e", "slow")
        assert loads == [1]
    finally:
        gate.set()
    await eventually_async(lambda: slot.thread is None)
    slot.retry_at = 0.0
    assert await catalog.get("e", "slow") is model


async def test_a_check_that_hangs_counts_as_a_failed_load(model):
    async def never(engine, found):
        await asyncio.Event().wait()

    catalog = Catalog([Slot("e", "m", lambda: model, is_default=True)], never, load_seconds=0.05)
    with pytest.raises(ServiceUnavailableError, match="not loaded within"):
        await catalog.get("e", "m")


async def test_the_garbage_collector_passes_over_no_package_that_a_load_imported(model, monkeypatch):
    def importing():
        for number in range(200):
            monkeypatch.setitem(sys.modules, f"imported_{number}", ModuleType(f"imported_{number}"))
        return model

    catalog = Catalog([Slot("e", "light", lambda: model, is_default=True), Slot("e", "heavy", importing)])
    before = gc.get_freeze_count()
    try:
        await catalog.get("e", "light")
        assert gc.get_freeze_count() == before
        await catalog.get("e", "heavy")
        assert gc.get_freeze_count() >= before + 200
    finally:
        # The modules of this test go, and all others stay aside: each pass over them takes half a second.
        monkeypatch.undo()
        gc.unfreeze()
        gc.collect()
        gc.freeze()

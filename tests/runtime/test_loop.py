"""The event loop of a service, with and without uvloop."""

import asyncio
import importlib.util

import pytest

from runtime import loop


@pytest.mark.parametrize(("installed", "module"), [(True, "uvloop"), (False, "asyncio")])
def test_a_service_runs_with_and_without_uvloop(monkeypatch: pytest.MonkeyPatch, installed: bool, module: str) -> None:
    if not installed:
        find = importlib.util.find_spec
        monkeypatch.setattr(loop, "find_spec", lambda name: None if name == "uvloop" else find(name))
    found: list[str] = []

    async def main() -> None:
        found.append(type(asyncio.get_running_loop()).__module__.partition(".")[0])

    loop.run(main())
    assert found == [module]

"""The arguments of `python -m benchmarks.chaos`: a mistake must not start 20 minutes of attacks."""

import sys

import pytest

from benchmarks import chaos


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--help"], 0, "--attacks"),
        (["--attacks", "nobody"], 2, "nobody"),
        (["open_calls"], 2, "open_calls"),
        (["--attacks", "--overload"], 2, "not allowed with"),
    ],
)
def test_help_and_mistakes_start_nothing(arguments, status, text, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["chaos", *arguments])
    with pytest.raises(SystemExit) as caught:
        chaos.main()
    assert caught.value.code == status
    assert text in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {"only_attacks": False, "only_overload": False, "limits": False, "names": tuple(chaos.attacks.ATTACKS)}),
        (["--attacks"], {"only_attacks": True, "names": tuple(chaos.attacks.ATTACKS)}),
        (["--attacks", "open_calls", "--limits"], {"only_attacks": True, "limits": True, "names": ["open_calls"]}),
        (["--overload"], {"only_overload": True, "only_attacks": False}),
    ],
)
def test_flags_choose_the_parts_that_run(arguments, expected, monkeypatch):
    asked = {}

    async def run(**chosen):
        asked.update(chosen)
        return False

    monkeypatch.setattr(sys, "argv", ["chaos", *arguments])
    monkeypatch.setattr(chaos, "run", run)
    with pytest.raises(SystemExit) as caught:
        chaos.main()
    assert caught.value.code == 1
    assert expected.items() <= asked.items()

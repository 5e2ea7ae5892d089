"""Warnings as users get them, also those of a newer service."""

from market_inference.client import warning
from market_inference.contract.generated import inference_pb2 as pb


def test_a_warning_has_its_code_message_and_evidence() -> None:
    evidence = [pb.Evidence(name="ratio", values=[4]), pb.Evidence(name="positions", values=[1, 2])]
    message = pb.AnswerWarning(code="WARNING_CODE_SUSPECTED_SPLIT", message="A split.", evidence=evidence)
    (found,) = warning.read([message])
    assert found == warning.AnswerWarning("SUSPECTED_SPLIT", "A split.", {"ratio": (4.0,), "positions": (1.0, 2.0)})


def test_an_unknown_code_of_a_newer_service_is_its_number() -> None:
    assert warning.read([pb.AnswerWarning(code=999, message="New.")])[0].code == "999"

"""Limits that commands keep to by themselves, read from the contract."""

from market_inference.contract import methods
from market_inference.contract.generated import inference_pb2 as pb


def max_values() -> int:
    """The longest series that a request may hold."""
    return int(methods.field_rules(pb.Series.DESCRIPTOR.fields_by_name["values"]).repeated.max_items)


def max_bars() -> int:
    """The most bars that a panel in a request may hold."""
    return int(methods.field_rules(pb.Panel.DESCRIPTOR.fields_by_name["close"]).repeated.max_items)


def max_texts() -> int:
    """The most texts that a request may hold."""
    return int(methods.field_rules(pb.AnalyzeSentimentRequest.DESCRIPTOR.fields_by_name["texts"]).repeated.max_items)

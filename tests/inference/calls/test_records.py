"""The log line of a replied request: names, counts and times under the request's id."""

import logging

from inference.calls.call import ReplicaCall
from inference.calls.records import Records
from inference.metrics import Metrics
from tests.eventually import eventually_async

TRACE = "0af7651916cd43dd8448eb211c80319c"


def call() -> ReplicaCall:
    made = ReplicaCall(request_id="r1", client="desk", traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
    made.add_items("auto", 2)
    made.add_items("minilm", 1)
    made.queue_seconds, made.run_seconds, made.batch_items = 0.25, 0.5, 3
    return made


async def test_a_line_follows_the_reply_and_has_the_phases(caplog):
    caplog.set_level(logging.INFO, "inference.request")
    records = Records(Metrics())
    records.add("analyze", "OK", call(), 1.0)
    records.add("predict", "INTERNAL", call(), 1.0)
    assert not caplog.records, "the reply leaves before the line is written"
    good, bad = await eventually_async(lambda: caplog.records, lambda found: len(found) == 2)
    assert (good.levelname, bad.levelname) == ("INFO", "ERROR")
    expected = {
        "request_id": "r1", "trace_id": TRACE, "client": "desk", "method": "analyze", "code": "OK",
        "model": "auto, minilm", "items": 3, "calls": 1, "seconds": 1.0, "queue_seconds": 0.25, "form_seconds": 0.0,
        "device_seconds": 0.5, "encode_seconds": 0.0, "batch_items": 3,
    }  # fmt: skip
    assert good.fields == expected


async def test_without_the_level_no_line_is_kept(caplog):
    caplog.set_level(logging.WARNING, "inference.request")
    records = Records(Metrics())
    records.add("predict", "OK", call(), 1.0)
    assert not records._replied

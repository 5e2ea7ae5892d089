"""The steps of a JSON request: the conversion of a large body leaves the event loop free."""

import threading

import pytest

from edge import caller as callers
from edge.admission import Admission
from edge.answers import Answers
from edge.body import THREAD_BYTES
from edge.config import Config
from edge.upstream import Upstream
from market_inference.contract.errors import InvalidRequestError


class Body(dict):
    """Notes the thread that converts it."""

    def items(self):
        self.thread = threading.current_thread()
        return super().items()


@pytest.mark.parametrize(("size", "own"), [(THREAD_BYTES, True), (THREAD_BYTES + 1, False)])
async def test_a_large_body_is_converted_in_another_thread(size, own):
    config = Config()
    upstream = Upstream(config)
    answers = Answers(config, upstream, Admission(config, upstream))
    caller = callers.read([], "")
    caller.bytes_in = size
    body = Body(unknown=1)
    with pytest.raises(InvalidRequestError, match="unknown"):
        await answers.ask("Predict", lambda _: (body, {}), {}, caller)
    assert (body.thread is threading.current_thread()) is own
    await upstream.close()

"""The steps of an authenticated call, in their order: from admission to the one outcome.

    start()            take a place in flight, limit the answer, check, charge, then merge or send
    _send_together()   the calls that arrived together: one request for each group
    _answered()        the way back: one answer completes one call, or all calls of a merged request

Owns the order of the steps, the same for unary calls and for requests of a Stream. A step is a plain function call;
only GetStatus and a budget shared by several gateways need a task. Authentication is servicer.py's, the choice of a
replica router.py's.
"""

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import partial

from google.protobuf.message import DecodeError
from google.rpc import code_pb2

from gateway.access.budget import Allowance, Limits, Remaining
from gateway.access.in_flight import InFlight
from gateway.calls import asked, merging
from gateway.calls.call import Call
from gateway.calls.merging import Group, Merging
from gateway.calls.refusals import Refusals
from gateway.calls.request import Answer, Request
from gateway.calls.slow_checks import SlowChecks
from gateway.calls.status import Status
from gateway.replicas.router import Router
from market_inference.contract import deadline, units
from market_inference.contract.errors import (
    AnswerTooLargeError,
    DeadlineExceededError,
    DrainingError,
    InvalidRequestError,
    RemoteError,
)
from market_inference.contract.generated.exchange_pb2 import Timing
from market_inference.contract.validation.check import SMALL_BYTES, check_fast, check_slowly, read
from runtime.logs import fields

log = logging.getLogger("gateway.request")

# Errors of a single item, or with the place of an item in the text: the calls of a merged request are then sent again,
# alone and once.
_OF_ONE_ITEM = {code_pb2.INVALID_ARGUMENT, code_pb2.INTERNAL}


def draining_error() -> DrainingError:
    """The refusal while this gateway takes no new work; another gateway takes the call."""
    return DrainingError("the gateway is draining", retry_after=0.1)


class Pipeline:
    """Serves calls, by places in flight, budgets and replicas."""

    def __init__(self, in_flight: InFlight, memory: InFlight, limits: Limits, router: Router, status: Status) -> None:
        self.in_flight = in_flight
        # Bytes of requests and of expected answers.
        self.memory = memory
        self.limits = limits
        self.router = router
        self.draining = False
        self._status = status
        self.slow_checks = SlowChecks()
        self._refusals = Refusals()
        # The calls arriving together at the moment; None while calls arrive alone.
        self._merging: Merging | None = None

    def start(self, call: Call) -> None:
        """Begin to serve a call. The call finishes once, now or later; a bug is an outcome, too."""
        call.size_bytes = len(call.raw)
        try:
            self.refuse_when_draining()
            self.in_flight.enter(call.client.name)
            call.in_flight = self.in_flight
            mistake = self._reserve(call)
            call.allowance = self.limits.allowance(call.client)
            if call.too_large is not None and call.size_bytes > SMALL_BYTES:
                # To check the numbers of a request of 5 MB takes as long as to read them. Small ones are told a broken
                # rule instead, such as that of the horizon.
                self._checked(call, call.too_large)
                return
            self._refusals.check(call, self.router.takes_work)
            if mistake is not None:
                self._checked(call, mistake)
            elif call.allowance is None:
                self._merge_or_send(call)
            else:
                self._check(call)
        except Exception as error:  # noqa: BLE001 -- reported and logged by completion.py
            call.finish(error)

    def _reserve(self, call: Call) -> InvalidRequestError | None:
        """Hold bytes for the call's request and answer, before anything is computed. Raises OverloadedError.

        The mistake of a request that is too large to be read, or that has too many elements.
        """
        answer_bytes, limit, mistake = 0, call.method.max_answer_bytes, None
        try:
            message = call.message = read(call.method, call.raw)
            if message is not None:
                call.model = getattr(message, "model", "")
                answer_bytes = call.method.answer_bytes(message)
                if call.logged and log.isEnabledFor(logging.INFO):
                    call.asked = asked.of(call.method, message)
        except InvalidRequestError as error:
            mistake = error
        except DecodeError:
            pass  # an indicator that cannot be read: the check refuses the request
        if 0 < limit < answer_bytes:
            call.too_large = AnswerTooLargeError(limit, answer_bytes)
            return None
        call.held_bytes = call.size_bytes + answer_bytes
        self.memory.enter(call.client.name, call.held_bytes)
        call.memory = self.memory
        return mistake

    def refuse_when_draining(self) -> None:
        """Raises DrainingError."""
        if self.draining:
            raise draining_error()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Calls started within the block arrive together, and are merged at the end of the block."""
        if self._merging is not None:
            yield
            return
        self._merging = Merging()
        try:
            yield
        finally:
            self._send_together()

    def _check(self, call: Call) -> None:
        """Check a call by itself: the fast check now, the explaining check in a turn of the client."""
        try:
            if call.message is None:
                call.message = read(call.method, call.raw)
            call.checked = check_fast(call.method, call.raw, call.message, call.rest)
        except InvalidRequestError as error:
            self._checked(call, error)
            return
        if call.checked is None:
            call.message = None
            if call.mistakes is not None:
                call.mistakes.suspected = True
            self.slow_checks.add(call.client.name, partial(self._check_slowly, call))
        else:
            self._checked(call)

    def _check_slowly(self, call: Call) -> None:
        if call.finished:
            return
        try:
            if deadline.now() >= call.deadline:
                raise DeadlineExceededError("the deadline passed before the request was checked")
            try:
                if call.mistakes is not None:
                    call.mistakes.refuse_further()
                call.checked = check_slowly(call.method, call.raw)
            except InvalidRequestError as error:
                if call.mistakes is not None:
                    call.mistakes.count += 1
                self._checked(call, error)
            else:
                self._checked(call)
        except Exception as error:  # noqa: BLE001 -- reported and logged by completion.py
            call.finish(error)

    def _checked(self, call: Call, mistake: InvalidRequestError | None = None) -> None:
        """Go on after the check: charge a call once, then send it. Raises ServiceError."""
        if call.allowance is not None and not call.units:
            self._charge(call, call.allowance, mistake)
        elif mistake is not None:
            raise mistake
        else:
            self._send_checked(call)

    def _charge(self, call: Call, allowance: Allowance, mistake: InvalidRequestError | None) -> None:
        """Take a call's units from the client's budget, before anything is computed."""
        if mistake is not None:
            # Mistakes cost units, too: sending them would be free otherwise.
            cost = units.of_mistake(call.size_bytes, len(mistake.violations) + mistake.more)
        elif call.checked is not None:
            cost = max(1, call.method.units(call.message or call.checked.message))
        else:
            raise AssertionError("a call is charged after its check")
        spent = call.charge(self.limits, allowance, cost)
        if isinstance(spent, Remaining):
            self._charged(call, spent, mistake)
        else:
            self._spawn(call, self._charge_shared(call, spent, mistake))

    async def _charge_shared(
        self, call: Call, spent: Coroutine[None, None, Remaining], mistake: InvalidRequestError | None
    ) -> None:
        """For a budget in Redis. Calls whose charge ends in the same loop turn have arrived together."""
        remaining = await spent
        call.task = None
        if self._merging is None:
            self._merging = Merging()
            asyncio.get_running_loop().call_soon(self._send_together)
        self._charged(call, remaining, mistake)

    def _charged(self, call: Call, remaining: Remaining, mistake: InvalidRequestError | None) -> None:
        call.remaining = remaining
        if mistake is not None:
            raise mistake
        self._merge_or_send(call)

    def _merge_or_send(self, call: Call) -> None:
        if call.method.name == "GetStatus":
            self._spawn(call, self._get_status(call))
        elif not (
            self._merging is not None
            and call.too_large is None
            and self._merging.try_merge(call, self.router.expected.estimate(call.method.name, call.size_bytes))
        ):
            self._check_and_send(call)

    async def _get_status(self, call: Call) -> None:
        call.finish(await self._status.answer(call))

    def _spawn(self, call: Call, work: Coroutine[None, None, None]) -> None:
        task = call.task = asyncio.get_running_loop().create_task(work)

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                call.finish(error)

        task.add_done_callback(ended)

    def _send_together(self) -> None:
        """Send the calls of together(); a call without company is sent alone."""
        together, self._merging = self._merging, None
        for group in together.close() if together is not None else ():
            if len(group.calls) > 1:
                self._check_and_send_together(group)
            else:
                self._check_and_send(group.calls[0])

    def _check_and_send_together(self, group: Group) -> None:
        try:
            raw = merging.join(group)
            if raw is not None:
                self._send(Request(group.calls, self._answered, raw))
                return
        except Exception as error:  # noqa: BLE001 -- reported and logged by completion.py
            _finish(group.calls, error)
        # A call of the group breaks a rule: all calls are checked alone, and get their own errors.
        for call in group.calls:
            if not call.finished:
                self._check_and_send(call)

    def _check_and_send(self, call: Call) -> None:
        try:
            if call.checked is None:
                self._check(call)
            else:
                self._send_checked(call)
        except Exception as error:  # noqa: BLE001 -- reported and logged by completion.py
            call.finish(error)

    def _send_checked(self, call: Call) -> None:
        if call.checked is None:
            raise AssertionError("a call is sent after its check")
        if call.too_large is not None:
            raise call.too_large
        request = Request([call], self._answered, call.checked.raw)
        for refusal in call.checked.refused:
            request.envelope.refused.add(
                list=refusal.list_name, index=refusal.index, status=refusal.error.status(call.request_id)
            )
        self._send(request)

    def _send(self, request: Request) -> None:
        for call in request.calls:
            call.message = None
        self.router.send(request)

    def _answered(self, request: Request, answer: Answer) -> None:
        """Complete the calls of a request with a replica's answer."""
        try:
            self._complete(request, answer)
        except Exception as error:  # noqa: BLE001 -- reported and logged by completion.py
            _finish(request.calls, error)

    def _complete(self, request: Request, answer: Answer) -> None:
        calls = request.calls
        if isinstance(answer, Exception):
            _finish(calls, answer)
            return
        reply = answer
        # A copy: a part of a message keeps the memory of the whole message, which has the response.
        request.timing = Timing()
        request.timing.CopyFrom(reply.timing)
        if reply.HasField("error"):
            self._refusals.note(request, reply.error)
            if len(calls) == 1 or reply.error.code not in _OF_ONE_ITEM:
                _finish(calls, RemoteError(reply.error))
        elif len(calls) == 1:
            calls[0].finish(reply.response)
        else:
            try:
                responses = merging.split(request, reply)
            except ValueError:  # the calls are then sent alone
                log.exception("bug", extra=fields(request_id=request.envelope.request_id, replica=request.replica))
                responses = []
            for call, response in responses:
                call.finish(response)
        # Calls of a merged request with a failed item: sent again, alone, for an error of their own.
        for call in calls:
            if not call.finished:
                self._check_and_send(call)


def _finish(calls: list[Call], error: Exception) -> None:
    for call in calls:
        call.finish(error)

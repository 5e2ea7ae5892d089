"""A session's bars and checkpoint in the client, and the opening of a lost session."""

import pytest

from market_inference.client.session import Record
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.errors import InternalError, UnavailableError

CLOSES = [100.0 + at for at in range(30)]


def checkpoint(sequence: int) -> pb.WatchCheckpoint:
    return pb.WatchCheckpoint(sequence=sequence, bars=len(CLOSES) - 1 + sequence, state=b"state")


def opened(bars: int, made: pb.WatchCheckpoint | None = None) -> tuple[Record, pb.WatchResponse]:
    """An open session; the service holds so many bars."""
    record = Record("A", CLOSES, None, (), None, "lossless", 10)
    record.open()
    answer = pb.WatchResponse(opened=pb.WatchOpened(bars=bars), checkpoint=made)
    record.read(answer)
    return record, answer


def answered(record: Record, made: pb.WatchCheckpoint | None = None) -> None:
    sequence = record.append(1.0, None, None).sequence
    record.read(pb.WatchResponse(sequence=sequence, taken=sequence, update=pb.WatchUpdate(), checkpoint=made))


@pytest.mark.parametrize(("bars", "every", "sent"), [(200, 64, 200), (20, 64, 42), (200, 0, 200), (20, 0, 30)])
def test_a_session_is_opened_again_with_the_bars_that_another_replica_needs_and_no_more(bars, every, sent):
    """As many as the service holds, and all bars since the checkpoint with the one before; the client's keep is 10."""
    record, _ = opened(bars, checkpoint(0) if every else None)
    most = 0
    for sequence in range(1, 1001):
        answered(record, checkpoint(sequence) if every and sequence % every == 0 else None)
        most = max(most, *(len(held) for held in (record._times, *record._bars.values())))
    message = record.open().open
    assert (len(message.times), len(message.history.close), message.sequence) == (sent, sent, 1000)
    assert message.bars == 30
    assert message.checkpoint == (checkpoint(960) if every else pb.WatchCheckpoint())
    assert most <= bars + bars // 4 + 200


def test_bars_without_a_checkpoint_are_all_held():
    record, _ = opened(30, checkpoint(0))
    for _ in range(300):
        answered(record)
    assert len(record.open().open.history.close) == 302


@pytest.mark.parametrize("made", [pb.WatchCheckpoint(sequence=2, bars=30), pb.WatchCheckpoint(sequence=1, bars=29)])
def test_a_checkpoint_of_other_bars_is_a_wrong_answer(made):
    record, _ = opened(30, checkpoint(0))
    with pytest.raises(InternalError, match="checkpoint: expected bar 1 after 30 bars"):
        answered(record, made)


def test_a_replica_without_checkpoints_does_not_continue_a_session_with_one():
    """Its averages would begin anew without a word; another replica may know checkpoints."""
    record, answer = opened(30, checkpoint(0))
    record.open()
    answer.ClearField("checkpoint")
    with pytest.raises(UnavailableError, match="too old"):
        record.read(answer)


def test_a_gateway_that_drops_the_checkpoint_does_not_continue_a_session():
    """During an upgrade the next gateway may know checkpoints."""
    record, answer = opened(30, checkpoint(0))
    for sequence in range(1, 131):
        answered(record, checkpoint(sequence) if sequence % 64 == 0 else None)
    sent = len(record.open().open.times)
    answer.checkpoint.CopyFrom(pb.WatchCheckpoint(sequence=130, bars=sent - 1))
    with pytest.raises(UnavailableError, match="too old"):
        record.read(answer)
    record.open()
    answer.checkpoint.CopyFrom(checkpoint(130))
    assert record.read(answer) is None


def test_a_session_of_a_replica_without_checkpoints_is_continued_by_a_replica_with_them():
    """Such a replica counts the bars that it was opened with."""
    record, answer = opened(30)
    for _ in range(1000):
        answered(record)
    sent = len(record.open().open.times)
    answer.checkpoint.CopyFrom(pb.WatchCheckpoint(sequence=1000, bars=sent - 1))
    record.read(answer)
    record.append(1.0, None, None)
    newest = pb.WatchCheckpoint(sequence=1001, bars=sent)
    record.read(pb.WatchResponse(sequence=1001, taken=1, update=pb.WatchUpdate(), checkpoint=newest))
    assert record.open().open.checkpoint == newest

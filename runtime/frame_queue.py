"""Messages waiting for a frame of an Exchange stream: messages ready at the same time leave in one frame.

Owns the order and the size of frames, at both ends of a stream. A frame is written whole, so a message of 5 MB delays
the messages behind it by tens of milliseconds. Frames with small messages and frames with one large message take turns:
a small message waits for one large message at most.
"""

FRAME_BYTES = 1 << 20
"""A frame takes no more messages once it holds this many bytes."""
LARGE_BYTES = 1 << 18
"""The bytes of content from which on a message is large."""


class FrameQueue:
    """Serialised messages, each in pieces. Small messages keep their order, and so do large messages."""

    def __init__(self) -> None:
        self._small: list[tuple[bytes, ...]] = []
        # By the id of the message.
        self._large: dict[int, tuple[bytes, ...]] = {}
        self._large_next = False

    def __bool__(self) -> bool:
        return bool(self._small or self._large)

    def add(self, pieces: tuple[bytes, ...], large_id: int | None = None) -> None:
        """Add a message. `large_id`: the id of a large message; small messages may overtake large messages."""
        if large_id is None:
            self._small.append(pieces)
        else:
            self._large[large_id] = pieces

    def follow(self, large_id: int, pieces: tuple[bytes, ...]) -> bool:
        """Append a message to the frame of a waiting large message. False if the large message does not wait."""
        before = self._large.get(large_id)
        if before is None:
            return False
        self._large[large_id] = (*before, *pieces)
        return True

    def discard(self, large_id: int) -> bool:
        """Drop a waiting large message. False if the message does not wait."""
        return self._large.pop(large_id, None) is not None

    def take(self) -> list[bytes]:
        """The pieces of the next frame. Concatenated serialised messages are one message."""
        if self._large and (self._large_next or not self._small):
            self._large_next = False
            return list(self._large.pop(next(iter(self._large))))
        self._large_next = True
        pieces: list[bytes] = []
        count = size = 0
        while count < len(self._small) and (not count or size < FRAME_BYTES):
            pieces += self._small[count]
            size += len(pieces[-1])
            count += 1
        del self._small[:count]
        return pieces

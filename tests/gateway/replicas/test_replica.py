"""An old stream to a replica is replaced without a gap: the replica takes work all the time."""

from gateway.replicas import replica as rooms


async def test_a_replica_stays_ready_while_its_only_stream_is_replaced(start, monkeypatch):
    monkeypatch.setattr(rooms, "STREAM_AGE_SECONDS", (0.05, 0.05))
    opened, unready = [], []
    real = rooms.Replica.opened

    def seen(replica, stream):
        real(replica, stream)
        opened.append(stream)
        unready.extend([stream] if len(opened) > 2 and not replica.ready else [])

    monkeypatch.setattr(rooms.Replica, "opened", seen)
    async with start(1) as gateway:
        while len(opened) < 8:
            await gateway.predict()
            unready.extend([] if gateway.server.router.takes_work else [gateway])
    assert not unready

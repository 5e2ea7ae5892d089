"""A TCP proxy in front of PostgreSQL. Connections fall silent without an end, as after the loss of a host."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import URL, make_url


@dataclass
class Proxy:
    """`url` leads through the proxy. `made`: the number of the connections so far."""

    url: str
    made: int = 0
    deaf: bool = False
    """Whether new connections are silent from the beginning."""
    _silent: set[socket.socket] = field(default_factory=set)
    _open: list[socket.socket] = field(default_factory=list)

    def silence(self) -> None:
        """Forward nothing more on the connections that are open now."""
        self._silent.update(self._open)

    def serve(self, listener: socket.socket, path: str) -> None:
        """Forward each connection to the server's Unix socket until the listener is shut down."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(path)
                self.made += 1
                self._open += [client, server]
                if self.deaf:
                    self._silent.update((client, server))
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._forward, args=(source, target), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (content := source.recv(1 << 16)) and source not in self._silent:
                target.sendall(content)
            if source not in self._silent:
                target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextlib.contextmanager
def proxied(url: str | URL) -> Iterator[Proxy]:
    """A proxy to the database of the URL."""
    direct = make_url(url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        through = URL.create(
            direct.drivername, direct.username, host="127.0.0.1", port=listener.getsockname()[1],
            database=direct.database,
        )  # fmt: skip
        proxy = Proxy(through.render_as_string(hide_password=False))
        path = f"{direct.query['host']}/.s.PGSQL.5432"
        thread = threading.Thread(target=proxy.serve, args=(listener, path), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            proxy.close()

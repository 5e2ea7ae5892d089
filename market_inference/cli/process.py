"""One service as a child process.

Owns the start, the ready line and the end of the process. pair.py owns the list of services.

A service prints one JSON line on stdout when it listens, {"event": "ready", "listen": "host:port", "metrics":
"host:port"}, logs on stderr, and ends on SIGTERM.
"""

import json
import queue
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from market_inference.cli import checkout
from market_inference.cli.logfile import open_log

TAIL_LINES = 12


class ServiceProcessError(RuntimeError):
    """A service did not start, or ended by itself; the text holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The addresses of a service as "host:port"; `metrics` serves Prometheus' /metrics over HTTP."""

    listen: str
    metrics: str


class ServiceProcess:
    """`python -m module` with `environment` on top of this process's own, logging to `log` or a file beside it.

    The process ends with this one, also when this one is killed. `on_exit` is called from another thread with this
    object when the process has ended. Raises NoCheckoutError, and OSError for a log that cannot be written.
    """

    def __init__(
        self, module: str, environment: Mapping[str, str], log: Path, on_exit: Callable[["ServiceProcess"], None]
    ) -> None:
        self.module = module
        self._on_exit = on_exit
        self._ready: queue.SimpleQueue[str] = queue.SimpleQueue()
        arguments, whole_environment = checkout.command(module, environment, ends_with_parent=True)
        stderr, self.log = open_log(log)
        with stderr:
            self._child = subprocess.Popen(
                arguments,
                env=whole_environment,
                stdin=subprocess.PIPE,  # held open: its end tells the child that this process is gone
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                encoding="utf-8",
                # Ctrl-C and a closed terminal are this process's to handle, which drains the gateway first.
                process_group=0,
            )
        self._reader = threading.Thread(target=self._read, name=f"{module}-stdout", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while the process runs."""
        return self._child.poll()

    def wait_ready(self, timeout: float) -> Ready:
        """The addresses. Raises ServiceProcessError when the process ends first, or `timeout` seconds pass."""
        try:
            line = self._ready.get(timeout=timeout)
        except queue.Empty:
            raise ServiceProcessError(self._report(f"did not start within {timeout:g} s")) from None
        if not line:
            raise self.failure()
        said = json.loads(line)
        return Ready(listen=said["listen"], metrics=said.get("metrics", ""))

    def failure(self) -> ServiceProcessError:
        """The error with the exit status and the end of the log."""
        return ServiceProcessError(self._report(f"ended with status {self._child.wait()}"))

    def stop(self, grace: float) -> None:
        """SIGTERM, then SIGKILL after `grace` seconds; returns when the process is gone."""
        self._child.terminate()
        try:
            self._child.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, unless the process has ended; returns when the process is gone."""
        self._child.kill()
        self._child.wait()
        self._reader.join()

    def tail(self) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])

    def _read(self) -> None:
        """Hand the first line over, drain the rest so that the child never blocks, and report the end."""
        stdout = self._child.stdout
        if stdout is None:
            raise RuntimeError("the child was started without a pipe")
        with stdout:
            self._ready.put(stdout.readline())
            for _ in stdout:
                pass
        self._child.wait()
        if self._child.stdin is not None:
            self._child.stdin.close()
        self._on_exit(self)

    def _report(self, what: str) -> str:
        log = self.tail()
        return f"the {self.module} process {what}" + (f"; the end of its log:\n{log}" if log else " and logged nothing")

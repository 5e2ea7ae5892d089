"""Machines that are processes of this computer: pod/run.sh in a session of its own.

Owns the folder of a machine: `lock`, `pid`, `exit`, `log`, `work/` and `tmp/`. The lock is taken before the start and
inherited by every process of the machine, so the lock is free exactly when no process of the machine is left, also
after SIGKILL. A look shares the lock for an instant with other looks, and a launch waits for the end of a look.
A machine outlives the worker that has started the machine, and any worker on this computer finds it by name.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from market_inference.contract.regular_file import opened
from training.plane.launcher import Handle, Launcher, LaunchError, Made, Offer, PodSpec, Presence, Seen, Wanted

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "training" / "pod" / "run.sh"
# The shell writes its pid (the session's number), leaves the machine to a child, and ends: the machine is no
# child of this process, and needs no wait. The exit code is written after the script's end. Where memory runs out, the
# kernel ends machines before the plane and the services.
_SHELL = """ulimit -d "$2" && echo $$ > ../pid || exit
{ echo 500 > /proc/$$/oom_score_adj; } 2> /dev/null
{ trap : TERM; bash "$1"; echo $? > ../exit.new; mv ../exit.new ../exit; } &"""
_LOOK_SECONDS = 0.01
# Variables that a machine inherits; the rest of the environment may hold secrets of the plane.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "HF_HOME")


class ProcessLauncher(Launcher):
    """Runs attempts as processes under `folder`, which give way to other processes.

    A dataset that is fetched leaves `keep_free` bytes of the disk. Each process of a machine has at most `memory` bytes
    of data, by default all.
    """

    def __init__(self, folder: Path, script: Path = SCRIPT, keep_free: int = 0, memory: int | None = None) -> None:
        self._folder = folder
        self._memory = "unlimited" if memory is None else str(memory >> 10)
        self._script = script
        self._keep_free = keep_free

    def offers(self, wanted: Wanted) -> list[Offer]:
        """This computer, for nothing, whatever is wanted."""
        return [Offer("process", 0.0)]

    def launch(self, name: str, offer: Offer, pod: PodSpec) -> Made:
        """Start the machine; nothing happens when a machine of this name runs or has run. Raises LaunchError."""
        folder = self._folder / name
        try:
            for part in ("work", "tmp"):
                (folder / part).mkdir(parents=True, exist_ok=True, mode=0o700)
            while not self._launched(folder, pod):
                time.sleep(_LOOK_SECONDS)
        except (OSError, subprocess.CalledProcessError) as error:
            raise LaunchError(f"the process could not be started: {error}") from error
        return Made()

    def _launched(self, folder: Path, pod: PodSpec) -> bool:
        """Start the machine if it was never started; False while another process looks at or launches the machine."""
        with _locked(folder, fcntl.LOCK_EX) as held:
            if (folder / "pid").exists():
                return True
            if held is not None:
                self._start(folder, held, pod)
        return held is not None

    def _start(self, folder: Path, held: int, pod: PodSpec) -> None:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        ours = {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "POD_LOG": str(folder / "log")}
        ours |= {"TMPDIR": str(folder / "tmp"), "KEEP_FREE_BYTES": str(self._keep_free)}
        with (folder / "log").open("ab") as log:
            subprocess.run(  # noqa: S603 -- our own script, in the system's shell
                ["nice", "sh", "-c", _SHELL, "machine", str(self._script), self._memory],  # noqa: S607
                env={**inherited, **ours, **pod.environment},
                cwd=folder / "work",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(held,),
                check=True,
            )

    def look(self, machine: Handle) -> Seen:
        """Running while any process of the machine lives."""
        folder = self._folder / machine.name
        try:
            with _locked(folder, fcntl.LOCK_SH) as held:
                if held is None:
                    return Seen(Presence.RUNNING)
        except FileNotFoundError:  # never made, or deleted by another thread
            return Seen(Presence.ABSENT)
        if not (folder / "pid").exists():
            return Seen(Presence.ABSENT)
        return Seen(Presence.EXITED, _number(folder / "exit"))

    def stop(self, machine: Handle, *, now: bool) -> None:
        """SIGTERM to every process of the machine's session, or SIGKILL."""
        folder = self._folder / machine.name
        session = _number(folder / "pid")
        # While the lock is held a process of the session lives, so the session's number belongs to no other process.
        if session is not None and self.look(machine).presence is Presence.RUNNING:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(session, signal.SIGKILL if now else signal.SIGTERM)

    def mine(self) -> list[Handle]:
        """The machines with a living process."""
        found = [Handle(lock.parent.name) for lock in self._folder.glob("*/lock")]
        return [machine for machine in found if self.look(machine).presence is Presence.RUNNING]

    def logs(self, machine: Handle, most: int) -> bytes | None:
        """The last `most` bytes of the machine's log; None without a log."""
        try:
            with opened(self._folder / machine.name / "log") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - most))
                return log.read(most)
        except OSError:
            return None

    def forget(self, machine: Handle) -> None:
        """Delete the folder of a machine that is gone."""
        if self.look(machine).presence is not Presence.RUNNING:
            shutil.rmtree(self._folder / machine.name, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, how: int) -> Iterator[int | None]:
    """The descriptor of the machine's lock, held for the block; None while another process keeps the lock away."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        yield None
    else:
        yield descriptor
    finally:
        os.close(descriptor)


def _number(path: Path) -> int | None:
    try:
        with opened(path) as file:
            return int(file.read(20))
    except (OSError, ValueError):
        return None

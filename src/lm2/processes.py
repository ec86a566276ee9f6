"""Parts of a long command in processes of their own: started, watched, ended together, their errors told in a sentence.

A part is a module that is run with `python -m` and ends with `child_exit`. It ends by itself when the process that
started it is gone.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm2.errors import sentence

ERRORS_FILE = "errors.txt"
USER_ERROR = 2


def usable_processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share() -> tuple[int, int]:
    """This process's rank and the number of processes, from the launcher's environment."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the first one of those that a launcher started, or the only one."""
    return share()[0] == 0


class Processes:
    """Processes by the name of what they do, with one thread each. What they print as errors goes to a file.

    Small matrices do not get faster with more threads, so several processes side by side use a processor better.
    """

    def __init__(self):
        self.running: dict[str, subprocess.Popen] = {}
        self.began: dict[str, float] = {}
        self._folders: dict[str, Path] = {}

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *error: Any) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.communicate()

    def start(self, name: str, module: str, arguments: list[str], folder: Path) -> None:
        """Run `python -m module arguments`; its errors go to `errors.txt` in `folder`, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        with (folder / ERRORS_FILE).open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,  # its end tells the process that this one is gone
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others
            )
        self.add(name, process, folder)

    def add(self, name: str, process: subprocess.Popen, folder: Path) -> None:
        """Watch a process that runs already."""
        self.running[name], self._folders[name], self.began[name] = process, folder, time.perf_counter()

    def ended(self) -> str | None:
        """The name of a process that has ended well since the last call; None if there is none.

        Raises:
            ValueError: one ended with an error of the user, or was killed.
            RuntimeError: one ended with an error of ours.
        """
        for name, process in self.running.items():
            if process.poll() is not None:
                process.communicate()
                del self.running[name]
                _check(name, process.returncode, self._folders[name] / ERRORS_FILE)
                return name
        return None


def _check(name: str, code: int, errors: Path) -> None:
    if code == 0:
        return
    if code < 0:
        raise ValueError(
            f"the process of {name} was ended from outside ({signal.Signals(-code).name}), perhaps for want "
            "of memory: give the same command again to go on"
        )
    lines = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no text"]
    if code == USER_ERROR:
        raise ValueError(f"{name}: {lines[-1]}")
    raise RuntimeError(f"the process of {name} failed: {lines[-1]} (see {errors})")


def child_exit(work: Callable[[], None]) -> int:
    """Do the work of a process that `Processes` started; its exit code, 2 when an error is the user's."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work()
    except (ValueError, OSError) as error:
        print(sentence(error), file=sys.stderr)
        return USER_ERROR
    return 0


def _end_with_parent() -> None:
    os.read(0, 1)  # not sys.stdin, whose lock would be held when the interpreter ends
    os._exit(1)

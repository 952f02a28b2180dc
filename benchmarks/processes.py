"""Measures a whole job from outside: wall and CPU seconds and the peak memory of a tree of processes (Linux)."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

INTERVAL = 0.05
"""Seconds between two readings of a tree of processes."""

GROWTH = 1.01
"""Proportional set sizes are read only after the resident ones have grown by this factor. Reading them walks the page
tables; every 50 ms that would slow down a job of gigabytes."""


@dataclass(frozen=True)
class Usage:
    """Seconds of a tree of processes, and its memory at the peak in bytes."""

    wall: float
    cpu: float
    peak_pss: int
    peak_rss: int


class JobFailedError(Exception):
    """A job ended with another status than 0, or not at all."""


class MemoryWatch(threading.Thread):
    """Records the peak memory of a process with its descendants: proportional (shared pages once) and resident."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak_pss = self.peak_rss = 0
        self._pid = pid
        self._rss_then = 0.0
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(INTERVAL):
            pids = tree_of(self._pid)
            rss = sum(map(resident_bytes, pids))
            self.peak_rss = max(self.peak_rss, rss)
            if rss > GROWTH * self._rss_then:
                self._rss_then = rss
                self.peak_pss = max(self.peak_pss, sum(map(proportional_bytes, pids)))

    def stop(self) -> None:
        """Stop recording."""
        self._stop_asked.set()
        self.join()


def tree_of(pid: int) -> list[int]:
    """Ids of a process and its descendants."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def resident_bytes(pid: int) -> int:
    """Resident set size in bytes; 0 for a process that has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize()


def proportional_bytes(pid: int) -> int:
    """Bytes of resident pages, each over the number of processes that share it; 0 for an ended process."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def high_water_bytes(pid: int) -> int:
    """Peak of the resident bytes as the kernel counts it; 0 for a process that has ended."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmHWM:")


def _kilobytes(path: Path, label: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(label)), 0)


def run_job(
    command: Sequence[str], env: Mapping[str, str] | None = None, time_limit: float | None = None
) -> Usage:
    """Run a command and measure it with all processes that it starts.

    The CPU seconds are those of all processes that were waited for, by the command or by their parents.

    Raises
    ------
    JobFailedError
        If the command failed (with its last line of errors), or took longer than ``time_limit`` seconds.
    """
    cpu, began = _children_cpu(), time.perf_counter()
    process = subprocess.Popen(
        command,
        env=None if env is None else {**os.environ, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that all of it can be ended at once
    )
    watch = MemoryWatch(process.pid)
    watch.start()
    try:
        _, errors = process.communicate(timeout=time_limit)
    except BaseException as error:  # an interrupt too must not leave half a job running
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise JobFailedError(f"not done after {time_limit:g} seconds") from None
        raise
    finally:
        watch.stop()
    usage = Usage(
        time.perf_counter() - began, _children_cpu() - cpu, watch.peak_pss, watch.peak_rss
    )
    if process.returncode:
        last = errors.strip().rsplit("\n", 1)[-1][:200]
        raise JobFailedError(f"status {process.returncode}: {last}")
    return usage


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime

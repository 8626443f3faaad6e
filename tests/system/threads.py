"""Stopping one thread of a running process, as a deadlock would: with ptrace(2), from outside, without its help."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

PTRACE_DETACH = 17
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
WALL = 0x40000000


def threads(pid: int) -> dict[int, str]:
    """The process's threads and their names."""
    return {int(task.name): (task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()}


class Frozen:
    """Holds one thread still for as long as it is entered. `reap` must be called while waiting for the process to end:
    the kernel keeps a traced thread until its tracer has seen its end."""

    def __init__(self, tid: int):
        self.tid = tid
        self.ended = False

    def __enter__(self) -> Frozen:
        ptrace(PTRACE_SEIZE, self.tid)
        ptrace(PTRACE_INTERRUPT, self.tid)
        os.waitpid(self.tid, WALL)
        return self

    def __exit__(self, *_) -> None:
        self.reap()
        if not self.ended:
            ptrace(PTRACE_DETACH, self.tid)

    def reap(self) -> None:
        if self.ended:
            return
        try:
            pid, status = os.waitpid(self.tid, WALL | os.WNOHANG)
        except ChildProcessError:
            self.ended = True
            return
        self.ended = pid == self.tid and (os.WIFEXITED(status) or os.WIFSIGNALED(status))


def ptrace(request: int, tid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(request, tid, None, None) == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"ptrace {request:#x} of {tid}: {os.strerror(error)}")

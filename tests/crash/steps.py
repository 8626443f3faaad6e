"""Runs a program so that every system call by which it changes a file system is a step that can be counted, failed or made
its last one.

A seccomp filter stops the program at just those calls (SECCOMP_RET_TRACE, seccomp(2)) and leaves all others alone, so that
the shipped binary runs at nearly its own speed and needs no failpoints. The ptrace(2) side is ours alone: every request
has to come from the thread that attached.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import signal
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

PTRACE_CONT, PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_SEIZE, PTRACE_LISTEN = 7, 12, 13, 0x4206, 0x4208
O_TRACEFORK, O_TRACEVFORK, O_TRACECLONE, O_TRACEEXEC, O_TRACESECCOMP, O_EXITKILL = 2, 4, 8, 16, 128, 1 << 20
EVENT_SECCOMP, EVENT_STOP = 7, 128
WALL = 0x40000000
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
RET_ALLOW, RET_TRACE = 0x7FFF0000, 0x7FF00000
AUDIT_ARCH_X86_64 = 0xC000003E
# include/uapi/linux/fs.h and EXT4's own; what sets inode flags.
SETFLAGS, FSSETXATTR = 0x40086602, 0x401C5820
O_CREAT, O_TRUNC = 0o100, 0o1000

OUTLIVES_SECONDS = 15
"""So long the program's own children may live after it."""

REGISTERS = struct.Struct("27Q")
"""struct user_regs_struct of x86_64: r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax …"""
RAX, ORIG_RAX = 10, 15
ARGUMENTS = (14, 13, 12, 7, 9, 8)


class Shape(Enum):
    """Where in a call's arguments the files are that it is about."""

    FD = "fd"
    PATH = "path"
    AT = "dirfd path"
    TWO_PATHS = "path path"
    TWO_AT = "dirfd path dirfd path"
    TARGET_AT = "text dirfd path"
    TARGET_PATH = "text path"


CALLS = {
    1: ("write", Shape.FD), 18: ("pwrite64", Shape.FD), 20: ("writev", Shape.FD), 296: ("pwritev", Shape.FD),
    328: ("pwritev2", Shape.FD), 40: ("sendfile", Shape.FD), 326: ("copy_file_range", Shape.FD),
    74: ("fsync", Shape.FD), 75: ("fdatasync", Shape.FD), 306: ("syncfs", Shape.FD), 277: ("sync_file_range", Shape.FD),
    77: ("ftruncate", Shape.FD), 285: ("fallocate", Shape.FD), 16: ("ioctl", Shape.FD),
    91: ("fchmod", Shape.FD), 93: ("fchown", Shape.FD), 190: ("fsetxattr", Shape.FD), 199: ("fremovexattr", Shape.FD),
    90: ("chmod", Shape.PATH), 92: ("chown", Shape.PATH), 94: ("lchown", Shape.PATH), 76: ("truncate", Shape.PATH),
    83: ("mkdir", Shape.PATH), 84: ("rmdir", Shape.PATH), 87: ("unlink", Shape.PATH),
    188: ("setxattr", Shape.PATH), 189: ("lsetxattr", Shape.PATH), 197: ("removexattr", Shape.PATH),
    2: ("open", Shape.PATH), 85: ("creat", Shape.PATH),
    257: ("openat", Shape.AT), 258: ("mkdirat", Shape.AT), 263: ("unlinkat", Shape.AT), 268: ("fchmodat", Shape.AT),
    452: ("fchmodat2", Shape.AT), 260: ("fchownat", Shape.AT), 280: ("utimensat", Shape.AT), 259: ("mknodat", Shape.AT),
    463: ("setxattrat", Shape.AT), 466: ("removexattrat", Shape.AT),
    82: ("rename", Shape.TWO_PATHS), 86: ("link", Shape.TWO_PATHS),
    264: ("renameat", Shape.TWO_AT), 316: ("renameat2", Shape.TWO_AT), 265: ("linkat", Shape.TWO_AT),
    88: ("symlink", Shape.TARGET_PATH), 266: ("symlinkat", Shape.TARGET_AT),
}  # fmt: skip

NEEDS_SPACE = frozenset(
    "write pwrite64 writev pwritev pwritev2 sendfile copy_file_range fsync fdatasync syncfs ftruncate fallocate fsetxattr "
    "setxattr lsetxattr mkdir mkdirat open openat creat rename renameat renameat2 link linkat symlink symlinkat mknodat".split()
)
"""What a full disk fails, at one file system or another."""

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def why_not() -> str | None:
    """Why steps cannot be counted on this machine; None where they can."""
    if os.uname().machine != "x86_64":
        return f"the numbers of system calls here are those of x86_64, and this is {os.uname().machine}"
    return None if os.geteuid() == 0 else "it mounts file systems and traces, for which it has to be root"


@dataclass(frozen=True)
class Step:
    """One call that changes something, just before it happens. Files are relative to the world; `nth` of its like."""

    call: str
    files: tuple[str, ...]
    nth: int

    def __str__(self) -> str:
        return f"{self.call} {' '.join(self.files)} #{self.nth}"


@dataclass(frozen=True)
class Verdict:
    """What becomes of a step."""

    kill: bool = False
    error: int = 0


GO_ON = Verdict()
KILL = Verdict(kill=True)


class Traced:
    """A program of which every step is shown to `on_step` before it happens, from `arm` on."""

    def __init__(self, command: list[str], world: Path, on_step: Callable[[Step], Verdict], output: Path):
        self._world = f"{world}/"
        self._on_step = on_step
        self._armed = False
        self._others: set[int] = set()
        self._seen: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.pid = self._start(command, output)

    def arm(self) -> None:
        """Steps count from now on; may be called from another thread."""
        self._armed = True

    def kill(self) -> None:
        """Ends it at once; may be called from another thread."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def _end_others_in_time(self) -> None:
        """What it started ends by itself when it is gone; the test does not wait for ever for that."""

        def end() -> None:
            for pid in list(self._others):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

        timer = threading.Timer(OUTLIVES_SECONDS, end)
        timer.daemon = True
        timer.start()

    def _start(self, command: list[str], output: Path) -> int:
        ready, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(go)
                null, out = os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                for fd, to in ((null, 0), (out, 1), (out, 2)):
                    os.dup2(fd, to)
                os.read(ready, 1)
                install_filter()
                os.execv(command[0], command)
            except BaseException as error:  # noqa: BLE001 (nothing may come back from a forked child)
                print(f"cannot start {command[0]}: {error!r}", file=sys.stderr)
            finally:
                os._exit(127)
        os.close(ready)
        options = O_TRACEFORK | O_TRACEVFORK | O_TRACECLONE | O_TRACEEXEC | O_TRACESECCOMP | O_EXITKILL
        request(PTRACE_SEIZE, pid, 0, options)
        os.write(go, b"x")
        os.close(go)
        return pid

    def run(self) -> int:
        """Lets it run to its end, and what it started to theirs; the wait status."""
        ended = None
        while True:
            try:
                pid, status = os.waitpid(-1, WALL)
            except ChildProcessError:
                if ended is None:
                    raise RuntimeError("the traced program is gone") from None
                return ended
            self._others.add(pid)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                self._others.discard(pid)
                if pid == self.pid:
                    ended, self._armed = status, False
                    self._end_others_in_time()
                continue
            if not os.WIFSTOPPED(status):
                continue
            number, event = os.WSTOPSIG(status), status >> 16
            try:
                if event == EVENT_SECCOMP:
                    self._stopped(pid)
                elif event == EVENT_STOP and number != signal.SIGTRAP:
                    request(PTRACE_LISTEN, pid, 0, 0)
                else:
                    request(PTRACE_CONT, pid, 0, 0 if event else number)
            except ProcessLookupError:
                pass  # killed meanwhile: waitpid tells

    def _stopped(self, pid: int) -> None:
        verdict = GO_ON
        if self._armed and (step := self._step(pid)):
            verdict = self._on_step(step)
        if verdict.kill:
            return self.kill()
        if verdict.error:
            registers = get_registers(pid)
            registers[ORIG_RAX], registers[RAX] = 2**64 - 1, 2**64 - verdict.error
            changed = ctypes.create_string_buffer(REGISTERS.pack(*registers))
            request(PTRACE_SETREGS, pid, 0, ctypes.addressof(changed))
        request(PTRACE_CONT, pid, 0, 0)
        return None

    def _step(self, pid: int) -> Step | None:
        registers = get_registers(pid)
        name, shape = CALLS[registers[ORIG_RAX]]
        arguments = [registers[i] for i in ARGUMENTS]
        if name == "open" and not arguments[1] & (O_CREAT | O_TRUNC):
            return None
        if name == "ioctl" and arguments[1] not in (SETFLAGS, FSSETXATTR):
            return None
        files = files_of(pid, shape, arguments)
        if not all(f.startswith(self._world) for f in files):
            return None
        short = tuple(nameless(f.removeprefix(self._world)) for f in files)
        self._seen[name, short] += 1
        return Step(name, short, self._seen[name, short])


def nameless(path: str) -> str:
    """Random parts of a name, and times in it, are the same in every run."""
    path = re.sub(r"\d{8}T\d{6}(\.\d+)?Z(-\d+)?", "TIME", path)
    path = re.sub(r"([0-9a-f]{32})+", "RANDOM", path)
    return path.removesuffix(" (deleted)")


def files_of(pid: int, shape: Shape, arguments: list[int]) -> tuple[str, ...]:
    first, second, third, fourth = arguments[:4]
    if shape is Shape.FD:
        return (of_fd(pid, first),)
    if shape is Shape.PATH:
        return (at(pid, -100, first),)
    if shape is Shape.AT:
        return (at(pid, first, second),)
    if shape is Shape.TWO_PATHS:
        return at(pid, -100, first), at(pid, -100, second)
    if shape is Shape.TWO_AT:
        return at(pid, first, second), at(pid, third, fourth)
    return (at(pid, second, third),) if shape is Shape.TARGET_AT else (at(pid, -100, second),)


def of_fd(pid: int, fd: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{ctypes.c_int(fd).value}")
    except OSError:
        return ""


def at(pid: int, directory: int, address: int) -> str:
    """The path that a call names, as the process would resolve it."""
    text = text_at(pid, address) if address else ""
    descriptor = re.fullmatch(r"(?:/proc/(?:self|thread-self|\d+)/fd/)(\d+)", text)
    if descriptor:
        return of_fd(pid, int(descriptor[1]))
    if text.startswith("/"):
        return os.path.normpath(text)
    base = ctypes.c_int(directory).value
    start = os.readlink(f"/proc/{pid}/cwd") if base == -100 else of_fd(pid, base)
    # Some hold the directory of descriptors open and name one of it.
    if re.fullmatch(r"/proc/\d+/fd", start) and text.isdigit():
        return of_fd(pid, int(text))
    return os.path.normpath(f"{start}/{text}")


def text_at(pid: int, address: int) -> str:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        read = memory.read(4096 - address % 4096)
        if b"\0" not in read:
            read += memory.read(4096)
    return os.fsdecode(read.split(b"\0")[0])


def get_registers(pid: int) -> list[int]:
    buffer = ctypes.create_string_buffer(REGISTERS.size)
    request(PTRACE_GETREGS, pid, 0, ctypes.addressof(buffer))
    return list(REGISTERS.unpack(buffer.raw))


def request(what: int, pid: int, address: int, data: int) -> None:
    if libc.ptrace(what, pid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace {what}: {errno.errorcode.get(number, number)}")


def install_filter() -> None:
    """Every call in `CALLS` stops; openat only where it may create or truncate."""
    number, low_of_third = 0, 16 + 8 * 2
    load, jump_equal, jump_set, ret = 0x20, 0x15, 0x45, 0x06
    program = [(load, 0, 0, 4), (jump_equal, 1, 0, AUDIT_ARCH_X86_64), (ret, 0, 0, RET_ALLOW), (load, 0, 0, number)]
    program += [(jump_equal, 0, 4, 257), (load, 0, 0, low_of_third), (jump_set, 1, 0, O_CREAT | O_TRUNC)]
    program += [(ret, 0, 0, RET_ALLOW), (ret, 0, 0, RET_TRACE)]
    plain = [n for n in CALLS if n != 257]
    program += [(jump_equal, len(plain) - i, 0, n) for i, n in enumerate(plain)]
    program += [(ret, 0, 0, RET_ALLOW), (ret, 0, 0, RET_TRACE)]
    text = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(text, len(text))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")

#!/usr/bin/python3
"""Runs a program as if the kernel were an older one, or a container's filter knew little: a seccomp filter answers what that
kernel would to calls and flags that it does not have.

    older.py KERNEL PROGRAM [ARGUMENT…]
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from dataclasses import dataclass

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_EQUAL, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
IS_ARM = platform.machine() == "aarch64"
NUMBERS = {
    "fanotify_init": 262 if IS_ARM else 300, "name_to_handle_at": 264 if IS_ARM else 303, "pidfd_open": 434, "close_range": 436,
    "openat2": 437, "faccessat2": 439, "fanotify_mark": 263 if IS_ARM else 301, "statmount": 457, "listmount": 458, "cachestat": 451,
    "file_getattr": 468, "file_setattr": 469, "fchmodat2": 452, "setxattrat": 463, "getxattrat": 464, "listxattrat": 465,
}  # fmt: skip


@dataclass(frozen=True)
class Missing:
    """A call that is not there, or one of its flags."""

    call: str
    error: int = errno.ENOSYS
    argument: int | None = None
    flag: int = 0


LINUX_6_1 = [
    *(Missing(call) for call in ("statmount", "listmount", "cachestat", "fchmodat2", "file_getattr", "file_setattr")),
    *(Missing(call) for call in ("setxattrat", "getxattrat", "listxattrat")),
    # FAN_REPORT_MNT; AT_HANDLE_FID.
    Missing("fanotify_init", errno.EINVAL, 0, 0x4000),
    Missing("name_to_handle_at", errno.EINVAL, 4, 0x200),
]
KERNELS = {
    "6.1": LINUX_6_1,
    # FAN_REPORT_PIDFD
    "5.10": [*LINUX_6_1, Missing("fanotify_init", errno.EINVAL, 0, 0x80)],
    "bare": [*LINUX_6_1, *(Missing(call) for call in ("openat2", "close_range", "faccessat2", "pidfd_open", "fanotify_init", "fanotify_mark"))],
}


def program(missing: list[Missing]) -> bytes:
    """As classic BPF, over struct seccomp_data: the call's number at 0, its arguments from 16 on."""
    steps: list[tuple[int, int, int, int]] = []
    for one in missing:
        steps.append((LOAD, 0, 0, 0))
        has_flag = one.argument is not None
        steps.append((JUMP_EQUAL, 0, 3 if has_flag else 1, NUMBERS[one.call]))
        if has_flag:
            steps += [(LOAD, 0, 0, 16 + 8 * one.argument), (JUMP_ANY_BIT, 0, 1, one.flag)]
        steps.append((RETURN, 0, 0, ERRNO | one.error))
    steps.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def become_older(kernel: str) -> None:
    """For this process and everything that it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = program(KERNELS[kernel])
    kept = ctypes.create_string_buffer(code, len(code))

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]

    what = Filter(len(code) // 8, ctypes.addressof(kept))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(what), 0, 0):
        raise OSError(ctypes.get_errno(), "no filter")


if __name__ == "__main__":
    become_older(sys.argv[1])
    os.execvp(sys.argv[2], sys.argv[2:])

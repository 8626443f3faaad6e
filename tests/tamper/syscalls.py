"""System calls that Python has no function for."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct

libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE = 1, 2, 8, 16
IMMUTABLE, APPEND, NODUMP = 0x10, 0x20, 0x40
FICLONE = 0x40049409
FIEMAP = 0xC020660B
IO_URING_SETUP, IO_URING_ENTER = 425, 426
FILE_SETATTR = 469


def checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def unshare(flags: int) -> None:
    checked(libc.unshare(flags))


def mount(source: str, target: os.PathLike | str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    coded = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    checked(libc.mount(*coded, ctypes.c_ulong(flags), None if data is None else data.encode()))


def umount(target: os.PathLike | str) -> None:
    checked(libc.umount2(os.fsencode(target), 2))


def rename(source: os.PathLike, target: os.PathLike, flags: int) -> None:
    checked(libc.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags))


def link_open(handle: int, target: os.PathLike) -> None:
    """Gives an open file a name."""
    checked(libc.linkat(AT_FDCWD, f"/proc/self/fd/{handle}".encode(), AT_FDCWD, os.fsencode(target), 0x400))


def fallocate(handle: int, mode: int, offset: int, length: int) -> None:
    checked(libc.fallocate(handle, mode, ctypes.c_long(offset), ctypes.c_long(length)))


def set_flags_by_path(path: os.PathLike, extended: int) -> None:
    """file_setattr(2), which opens nothing. `extended` are FS_XFLAG_ bits."""
    attributes = ctypes.create_string_buffer(struct.pack("<QIIII", extended, 0, 0, 0, 0))
    checked(libc.syscall(FILE_SETATTR, AT_FDCWD, os.fsencode(path), attributes, ctypes.c_size_t(24), 0))


def open_by_handle(path: os.PathLike, flags: int) -> int:
    """Opens a file by its handle, as nobody does who wants to be seen by name."""
    handle = ctypes.create_string_buffer(struct.pack("<Ii", 128, 0), 8 + 128)
    mount_id = ctypes.c_int()
    checked(libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), handle, ctypes.byref(mount_id), 0))
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        return checked(libc.open_by_handle_at(directory, handle, flags))
    finally:
        os.close(directory)


def uring_write(handle: int, data: bytes, offset: int) -> None:
    """One write through an io_uring, with no write(2) anywhere."""
    parameters = ctypes.create_string_buffer(120)
    ring = checked(libc.syscall(IO_URING_SETUP, 4, parameters))
    try:
        # struct io_uring_params: features is the sixth number, sq_off begins at 40, cq_off at 80.
        features = struct.unpack_from("<6I", parameters)[5]
        _, tail_at, mask_at, _, _, _, array_at = struct.unpack_from("<7I", parameters, 40)
        completions_at = struct.unpack_from("<6I", parameters, 80)[5]
        if not features & 1:
            raise OSError(errno.ENOSYS, "a kernel with two maps for a ring")
        size = max(array_at + 4 * 4, completions_at + 16 * 8)
        submission = mmap.mmap(ring, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        entries = mmap.mmap(ring, 4 * 64, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0x10000000)
        buffer = ctypes.create_string_buffer(data, len(data))
        # struct io_uring_sqe: IORING_OP_WRITE
        struct.pack_into("<BBHiQQII", entries, 0, 23, 0, 0, handle, offset, ctypes.addressof(buffer), len(data), 0)
        (tail,) = struct.unpack_from("<I", submission, tail_at)
        (mask,) = struct.unpack_from("<I", submission, mask_at)
        struct.pack_into("<I", submission, array_at + 4 * (tail & mask), 0)
        struct.pack_into("<I", submission, tail_at, tail + 1)
        done = checked(libc.syscall(IO_URING_ENTER, ring, 1, 1, 1, None, 0))
        if done != 1:
            raise OSError(errno.EIO, "the ring took nothing")
        (result,) = struct.unpack_from("<i", submission, completions_at + 8)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        entries.close()
        submission.close()
    finally:
        os.close(ring)


def first_block(path: os.PathLike) -> int:
    """Where on its device a file's content begins, in bytes."""
    handle = os.open(path, os.O_RDONLY)
    try:
        asked = bytearray(struct.pack("<QQIIII", 0, 1 << 40, 1, 0, 1, 0) + bytes(56))
        fcntl.ioctl(handle, FIEMAP, asked)
        if not struct.unpack_from("<I", asked, 20)[0]:
            raise OSError(errno.EOPNOTSUPP, "it lies nowhere by itself")
        return struct.unpack_from("<Q", asked, 32 + 8)[0]
    finally:
        os.close(handle)

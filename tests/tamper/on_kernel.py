#!/usr/bin/python3
"""Runs guardd on another kernel than this one: boots Debian's in qemu, without KVM if need be, and tells what it offers, who is
named, and what becomes of each row of the tamper matrix on ext4. Outside CI: it takes half an hour where qemu has to emulate.

    on_kernel.py [--release bookworm] [--programs target/debug] [--states watched sealed] [--changes 20] [--work DIR]

Needs root (for mmdebstrap), mmdebstrap, cpio and qemu-system-x86 (`apt-get install --no-install-recommends …`), a network to
Debian's archive the first time, 4 GiB of memory and 2 GiB below DIR (`/var/cache/guardd-tests`), and guardd built for that
release's C library. Everything runs in memory; nothing of this machine is seen inside but `tests/` and guardd.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import json
import os
import platform
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
PACKAGES = "acl,attr,e2fsprogs,kmod,libcap2-bin,mount,procps,python3"
# The kernel alone, unpacked: nothing has to be configured to boot it.
HOOK = """
mkdir "$1/kernel" && cd "$1/kernel" && apt-get download "$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: //p' | head -1)" &&
dpkg -x linux-image-*.deb . && mv lib/modules "$1/usr/lib/" && mv boot/vmlinuz-* "$1/vmlinuz" && cd / && rm -r "$1/kernel" &&
chroot "$1" /sbin/depmod "$(ls "$1/usr/lib/modules")"
"""
LEFT_OUT = ("dev/*", "usr/share/doc/*", "usr/lib/modules/*/kernel/sound", "usr/lib/modules/*/kernel/net", "usr/lib/modules/*/kernel/drivers/[!b]*")
BEGIN, END = "=== result", "=== end"
INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
mkdir -p /dev/shm /dev/pts; mount -t tmpfs shm /dev/shm
for module in loop ext4 overlay; do modprobe $module; done
cd /repository
/usr/bin/python3 tests/tamper/on_kernel.py --inside ARGUMENTS </dev/null >/dev/console 2>&1
sync; echo o >/proc/sysrq-trigger; sleep 60
"""


def root_file_system(release: str, work: Path) -> Path:
    archive = work / f"on-kernel-{release}.tar"
    if not archive.exists():
        half = archive.with_suffix(".half.tar")
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", f"--customize-hook={HOOK}", release, half],
            check=True,
        )
        half.rename(archive)
    return archive


def initial_memory(root: Path, programs: Path, arguments: list[str]) -> Path:
    """The whole system as the kernel unpacks it at first: no disk, no driver is needed."""
    (root / "repository").mkdir()
    shutil.copytree(REPOSITORY / "tests", root / "repository/tests", ignore=shutil.ignore_patterns("__pycache__", ".venv"))
    (root / "programs").mkdir()
    for name in ("guardd", "guardctl"):
        if (programs / name).exists():
            subprocess.run(["strip", "-o", root / "programs" / name, programs / name], check=True)
    init = root / "init"
    init.write_text(INIT.replace("ARGUMENTS", " ".join(arguments)))
    init.chmod(0o755)
    packed = root.parent / "initrd"
    with packed.open("wb") as out:
        names = subprocess.run(["find", ".", "-xdev", "-print0"], cwd=root, check=True, capture_output=True).stdout
        subprocess.run(["cpio", "--quiet", "-0", "-o", "-H", "newc"], cwd=root, input=names, stdout=out, check=True)
    return packed


def outside(asked: argparse.Namespace) -> None:
    asked.work.mkdir(parents=True, exist_ok=True)
    archive = root_file_system(asked.release, asked.work)
    with tempfile.TemporaryDirectory(prefix="on-kernel.", dir=asked.work) as top:
        root = Path(top) / "root"
        root.mkdir()
        left_out = [f"--exclude=./{path}" for path in LEFT_OUT]
        subprocess.run(["tar", "-C", root, "-xf", archive, *left_out], check=True)
        (root / "dev").mkdir(exist_ok=True)
        os.mknod(root / "dev/console", 0o20600, os.makedev(5, 1))
        kernel = Path(top) / "vmlinuz"
        (root / "vmlinuz").rename(kernel)
        states = [a for state in asked.states for a in ("--states", state)]
        packed = initial_memory(root, asked.programs, [*states, "--changes", str(asked.changes)])
        shutil.rmtree(root)
        said = asked.work / f"on-kernel-{asked.release}.log"
        began = time.monotonic()
        with said.open("wb") as log:
            subprocess.run(
                ["qemu-system-x86_64", "-accel", asked.accel, "-cpu", "max", "-smp", "2", "-m", "3G", "-nographic", "-no-reboot",
                 "-nic", "none", "-kernel", kernel, "-initrd", packed, "-append", "console=ttyS0 quiet panic=-1"],
                stdin=subprocess.DEVNULL, stdout=log, check=True, timeout=asked.hours * 3600,
            )  # fmt: skip
        text = said.read_text(errors="replace").replace("\r", "")
        if BEGIN not in text or END not in text:
            sys.exit(f"it came to no end; {said} has what was said:\n{text[-2000:]}")
        print(text.split(BEGIN)[1].split(END)[0].strip())
        print(f"\nIn qemu ({asked.accel.split(',')[0]}), {time.monotonic() - began:.0f} s in all.")


LIBC = ctypes.CDLL(None, use_errno=True)


def group(flags: int) -> str:
    """Can there be a group with these flags?"""
    made = LIBC.fanotify_init(flags | 1, 0)
    if made < 0:
        return errno.errorcode[ctypes.get_errno()]
    os.close(made)
    return "yes"


def connector() -> str:
    """Does the kernel tell this process of processes?"""
    with contextlib.closing(socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 11)) as listener:
        try:
            listener.bind((0, 1))
            request = struct.pack("=IIIIHHI", 1, 1, 0, 7, 4, 0, 1)
            listener.send(struct.pack("=IHHII", 16 + len(request), 3, 0, 0, 0) + request)
            while struct.unpack("=I", listener.recv(512)[28:32])[0] != 8:
                pass
        except BlockingIOError:
            return "no answer"
        except OSError as error:
            return errno.errorcode[error.errno or 0]
    return "yes"


def without_network_administration(command: list[str]) -> list[str]:
    return ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", *command]


def offers() -> list[str]:
    flags = {
        "events that name directory and entry (`FAN_REPORT_DFID_NAME`)": 0xC00,
        "with a handle on the process (`FAN_REPORT_PIDFD`)": 0xC00 | 0x80,
        "with the target (`FAN_REPORT_DFID_NAME_TARGET`)": 0xC00 | 0x1000 | 0x200,
        "of mounts (`FAN_REPORT_MNT`)": 0x4000,
    }
    lines = [f"| {name} | {group(bits)} |" for name, bits in flags.items()]
    lines.append(f"| exec events (process connector), with all capabilities | {connector()} |")
    reduced = subprocess.run(without_network_administration([sys.executable, __file__, "--connector"]), capture_output=True, text=True, check=False)
    lines.append(f"| the same without `CAP_NET_ADMIN` | {reduced.stdout.strip() or reduced.stderr[-200:]} |")
    return ["| fanotify and others | |", "|---|---|", *lines]


def attribution(changes: int, *, is_reduced: bool) -> list[str]:
    command = [sys.executable, "tests/bench/detection.py", "/programs", "--only", "attribution", "--dir", "/tmp", "--changes", str(changes)]
    done = subprocess.run(without_network_administration(command) if is_reduced else command, capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if line.startswith("|")] or [done.stderr[-1500:]]


def matrix_of(states: list[str]) -> list[str]:
    os.environ["GUARDD_TEST_BINARIES"] = "/programs"
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    import matrix
    from rows import ROWS

    columns = [matrix.Combination("ext4", backend, matrix.State[state.upper()]) for state in states for backend in ("fanotify", "inotify")]
    top = Path(tempfile.mkdtemp(dir="/tmp"))
    results: dict[str, dict[str, matrix.Result]] = {}
    lines = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for column in columns:
            print(f"… {column.name}", flush=True)
            try:
                found, noise = pool.submit(matrix.run, column, top).result()
            except Exception as error:  # noqa: BLE001  One combination that fails is told, and the others are run.
                lines.append(f"{column.name} was not run to its end: {error}")
                continue
            # What this kernel does not have is no way to change anything.
            absent = [r.row for r in found if r.verdict is matrix.Verdict.MISSED and r.why == os.strerror(errno.ENOSYS)]
            found = [r for r in found if r.row not in absent]
            results[column.name] = {r.row: r for r in found}
            verdicts = [r.verdict for r in found]
            count = ", ".join(f"{verdicts.count(v)} {v.value}" for v in matrix.Verdict if v in verdicts)
            told = [r for r in found if r.seen and r.seen.name == "EVENT" and r.verdict is matrix.Verdict.FOUND]
            named = sum(r.actor == "verified" for r in told)
            lines.append(f"- {column.name}: {len(found)} rows: {count}; who did it for {named} of {len(told)} that an event told; {len(noise)} reports without a change; not in this kernel: {', '.join(absent) or 'none'}")
            print(lines[-1], flush=True)
            lines += [f"  - {r.row}: {r.why}" for r in found if r.verdict is matrix.Verdict.MISSED] + [f"  - {n}" for n in noise]
    lines += ["", f"| change | {' | '.join(results)} |", "|---|" + "---|" * len(results)]
    for row in ROWS:
        found = [results[name].get(row.name) for name in results]
        if any(found):
            lines.append(f"| {row.name} | {' | '.join(f'{r.verdict.value}' if r else '' for r in found)} |")
    return lines


def inside(asked: argparse.Namespace) -> None:
    lines = [f"Linux {platform.release()}", "", *offers()]
    for words, is_reduced in (("with all capabilities", False), ("without `CAP_NET_ADMIN`, as the unit runs it", True)):
        print(f"… attribution {words}", flush=True)
        lines += ["", f"Who did it, {words}.", "", *attribution(asked.changes, is_reduced=is_reduced)]
    print("\n".join(lines), flush=True)
    lines += ["", "The tamper matrix.", "", *matrix_of(asked.states)]
    print(f"{BEGIN}\n{chr(10).join(lines)}\n{END}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", default="bookworm")
    parser.add_argument("--programs", type=Path, default=REPOSITORY / "target/debug")
    parser.add_argument("--states", nargs="+", action="extend", choices=["watched", "sealed", "unlocked"])
    parser.add_argument("--changes", type=int, default=20, help="by each command, to see who is named")
    parser.add_argument("--work", type=Path, default=Path(os.environ.get("GUARDD_TEST_CACHE", "/var/cache/guardd-tests")))
    parser.add_argument("--accel", default="tcg,thread=multi", help="kvm, where there is one that works")
    parser.add_argument("--hours", type=float, default=4)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--connector", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.states = asked.states or ["watched", "sealed"]
    if asked.connector:
        print(connector())
    elif asked.inside:
        inside(asked)
    else:
        outside(asked)


if __name__ == "__main__":
    main()

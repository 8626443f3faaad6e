"""A booted Debian: a copy of a disk image with systemd as PID 1, under systemd-nspawn.

Commands run *inside* it, by its own PID 1 (`systemd-run`), so they have the capabilities, the seccomp filter and the
cgroup that a service of that machine has. A machine shares the kernel, the network and the clock with the host and
nothing else; a `systemctl kill` in it reaches its own processes only (control_groups.py). What a killed run left behind is
ended and removed by the next one (`reap`).

`python3 machine.py reap` removes leftovers; `python3 machine.py shell RELEASE` boots one and gives a root shell in it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import control_groups
import rootfs
from paths import MACHINES

BOOT_SECONDS = 180
STOP_SECONDS = 120
COMMAND_SECONDS = 240

SIGRTMIN = signal.SIGRTMIN
POWEROFF = SIGRTMIN + 4
REBOOT = SIGRTMIN + 5
"""Signals that systemd as PID 1 takes as orders (systemd(1))."""

ENDED_FOR_REBOOT = 133
"""What systemd-nspawn --keep-unit ends with when the machine asks to be started again."""


class MachineError(Exception):
    """The machine itself did not do what a machine does: it did not boot, stop or answer."""


class CommandFailed(AssertionError):
    """A command inside a machine ended with another status than the test expected."""


class Timeout(AssertionError):
    """A condition did not become true in time."""


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    command: str
    status: int
    out: str
    err: str

    def json(self):
        """Standard output as JSON."""
        try:
            return json.loads(self.out)
        except ValueError as error:
            raise CommandFailed(f"not JSON: {error}\n{self.describe()}") from None

    def lines(self) -> list[str]:
        return self.out.splitlines()

    def describe(self) -> str:
        return f"$ {self.command}\nstatus {self.status}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Machine:
    """One machine. Use as a context manager, or call `start` and `close`."""

    def __init__(self, release: str, name: str | None = None):
        self.release = release
        self.name = name or f"guard-{release}-{os.getpid()}"
        self.directory = MACHINES / self.name
        self.root = self.directory / "root"
        """The machine's root directory as the host sees it."""
        self.console_file = self.directory / "console"
        self.nspawn: subprocess.Popen | None = None
        self.leader: int | None = None
        """The machine's PID 1, as a pid of the host."""

    def __enter__(self) -> Machine:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.close()

    # Life

    def start(self) -> None:
        """Copies the root file system and boots it; returns when systemd says that start-up is over."""
        base = rootfs.ensure(self.release)
        self.root.mkdir(parents=True)
        record_process(self.directory / "owner", os.getpid())
        try:
            disk = self.directory / "disk"
            subprocess.run(["cp", "--reflink=auto", "--sparse=always", str(base), str(disk)], check=True)
            # Without the kernel's lazy initialisation, which would write for minutes while tests run.
            subprocess.run(["mount", "-o", "loop,noinit_itable", str(disk), str(self.root)], check=True)
            with (self.root / "etc/hosts").open("a") as hosts:
                hosts.write(f"127.0.1.1 {self.name}\n")
            self.boot()
        except BaseException:
            self.close()
            raise

    def boot(self) -> None:
        """Boots the root directory as it stands now (first boot, or after `power_off` and `power_cut`)."""
        groups = control_groups.of_machine(self.name)
        (self.directory / "groups").write_text("".join(f"{group}\n" for group in groups))
        with self.console_file.open("ab") as console:
            self.nspawn = subprocess.Popen(
                [
                    "systemd-nspawn", "--register=no", "--keep-unit", "--quiet", "--directory", str(self.root),
                    "--machine", self.name, "--boot", "--console=pipe", "--timezone=off", "--resolv-conf=off",
                    "--system-call-filter=fanotify_init fanotify_mark",
                ],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                start_new_session=True, preexec_fn=lambda: control_groups.enter(groups),
                # cgroup v2 inside, as on a real Debian, whatever the host has: on v1, systemd 257 now and then fails to
                # start a unit that was stopped a moment ago.
                env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        record_process(self.directory / "nspawn", self.nspawn.pid)
        self.wait_booted()

    def wait_booted(self) -> None:
        def leader_found() -> bool:
            self.expect_alive()
            self.leader = next((pid for pid in children_of(self.nspawn.pid) if namespace_numbers(pid)[1:] == [1]), None)
            if self.leader is None:
                return False
            record_process(self.directory / "leader", self.leader)
            return True

        def started() -> bool:
            self.expect_alive()
            state = self.look(["systemctl", "is-system-running"], check=False).out.strip()
            return state in ("running", "degraded")

        try:
            wait_until(leader_found, "the machine's PID 1", seconds=BOOT_SECONDS)
            wait_until(started, "the end of the machine's start-up", seconds=BOOT_SECONDS)
        except Timeout as error:
            raise MachineError(f"{self.name} did not boot: {error}\n{self.console()}") from None

    def expect_alive(self) -> None:
        if self.nspawn is None or self.nspawn.poll() is not None:
            code = self.nspawn.returncode if self.nspawn else None
            raise MachineError(f"{self.name}: systemd-nspawn ended with {code}\n{self.console()}")

    def reboot(self) -> None:
        """A clean reboot, ordered from inside; returns when the machine is up again."""
        self.shut_down(REBOOT, expected=ENDED_FOR_REBOOT)
        self.boot()

    def power_off(self) -> None:
        """A clean shutdown. The root directory stays: `boot` brings the machine back."""
        self.shut_down(POWEROFF, expected=0)

    def shut_down(self, order: int, expected: int) -> None:
        self.expect_alive()
        os.kill(self.leader, order)
        try:
            ended = self.nspawn.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.power_cut()
            raise MachineError(f"{self.name} did not shut down in {STOP_SECONDS} s\n{self.console()}") from None
        if ended != expected:
            raise MachineError(f"{self.name}: systemd-nspawn ended with {ended}, not {expected}\n{self.console()}")
        self.leader = None

    def power_cut(self) -> None:
        """Ends every process of the machine at once, as a crash does. What was written stays written."""
        if self.nspawn is not None and self.nspawn.poll() is None:
            self.nspawn.kill()
            self.nspawn.wait()
        if self.leader is not None:
            end_process(self.leader)
        self.leader = None
        end_groups(self.directory)

    def close(self) -> None:
        """Ends the machine and removes all that it was."""
        self.power_cut()
        remove_tree(self.directory)

    # Commands

    def run(
        self,
        command: str | Sequence[str],
        *,
        user: str | None = None,
        stdin: str | bytes | None = None,
        status: int | None = 0,
        seconds: float = COMMAND_SECONDS,
        properties: Sequence[str] = (),
        directory: str | None = None,
    ) -> Result:
        """Runs a shell line or an argument vector inside, as a transient service of the machine.

        `status` is the expected exit status; None takes any.
        """
        argv = ["sh", "-c", command] if isinstance(command, str) else list(command)
        # systemd replaces $VARIABLES in a unit's command line; here the shell inside is to see them.
        argv = [argument.replace("$", "$$") for argument in argv]
        unit = ["systemd-run", "--pipe", "--wait", "--quiet", "--collect", "--setenv=LC_ALL=C.UTF-8"]
        unit.append(f"--property=RuntimeMaxSec={seconds:g}")
        if user:
            unit.append(f"--uid={user}")
        if directory:
            unit.append(f"--working-directory={directory}")
        unit += [f"--property={line}" for line in properties]
        return self.enter([*unit, "--", *argv], shown=shell_line(command), stdin=stdin, status=status, seconds=seconds)

    def look(self, argv: Sequence[str], *, check: bool = True, seconds: float = COMMAND_SECONDS) -> Result:
        """Runs a command in the machine's namespaces without asking its PID 1: quick, for reading state.

        It keeps the host's capabilities, so it proves nothing about what a process of the machine may do.
        """
        return self.enter(list(argv), shown=shell_line(argv), stdin=None, status=0 if check else None, seconds=seconds)

    def enter(self, argv, *, shown, stdin, status, seconds) -> Result:
        self.expect_alive()
        data = stdin.encode() if isinstance(stdin, str) else stdin
        process = subprocess.Popen(
            ["nsenter", "--target", str(self.leader), "--all", "--", *argv],
            stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=machine_environment(), start_new_session=True,
        )
        try:
            out, err = process.communicate(data, timeout=seconds)
        except subprocess.TimeoutExpired:
            # The whole group: nsenter's child, which is the one inside, holds the pipes too.
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise Timeout(f"no end after {seconds} s\n$ {shown}\n{text(out)}\n{text(err)}") from None
        result = Result(shown, process.returncode, text(out), text(err))
        if status is not None and result.status != status:
            raise CommandFailed(f"expected status {status}\n{result.describe()}")
        return result

    def popen(self, argv: Sequence[str], **options) -> subprocess.Popen:
        """A command left running inside (`journalctl -f`, `guardctl watch`); the caller ends it."""
        return subprocess.Popen(
            ["nsenter", "--target", str(self.leader), "--all", "--", *argv],
            stdin=subprocess.DEVNULL, env=machine_environment(), **options,
        )

    # Files and services

    def path(self, inside: str) -> Path:
        """The host's path of a path of the machine, as processes of the machine see it: with what they have mounted.

        Do not resolve it: the link that it goes through says `/`. Programs that do so get `on_disk`.
        """
        if self.leader is None:
            return self.on_disk(inside)
        return Path(f"/proc/{self.leader}/root") / inside.lstrip("/")

    def on_disk(self, inside: str) -> Path:
        """The host's path of a path on the machine's own disk, whatever is mounted over it inside."""
        return self.root / inside.lstrip("/")

    def write(self, inside: str, content: str | bytes, mode: int = 0o644) -> None:
        """Writes a file from outside, making its directory."""
        target = self.path(inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)

    def read(self, inside: str) -> str:
        return self.path(inside).read_text(errors="backslashreplace")

    def copy_in(self, source: Path, inside: str) -> None:
        """Copies a file or a tree of the host into the machine, attributes and all."""
        target = self.path(inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True)

    def main_pid(self, unit: str) -> int:
        """The unit's main process as the machine numbers it, 0 if it has none."""
        return int(self.show(unit, "MainPID"))

    def host_pid(self, pid: int) -> int:
        """The host's number of a process of the machine."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                same_namespace = os.readlink(entry / "ns/pid") == os.readlink(f"/proc/{self.leader}/ns/pid")
            except OSError:
                continue
            if same_namespace and namespace_numbers(int(entry.name))[-1:] == [pid]:
                return int(entry.name)
        raise MachineError(f"{self.name} has no process {pid}")

    def show(self, unit: str, prop: str) -> str:
        """A property of a unit."""
        return self.look(["systemctl", "show", "--value", "--property", prop, unit]).out.strip()

    def journal(self, *arguments: str) -> list[dict]:
        """Entries of the machine's journal."""
        out = self.look(["journalctl", "--no-pager", "--output=json", *arguments]).out
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]

    def console(self) -> str:
        try:
            return self.console_file.read_text(errors="replace")
        except OSError:
            return ""

    def journal_text(self) -> str:
        """The whole journal as text, whether or not the machine still runs."""
        directory = self.root / "var/log/journal"
        shown = subprocess.run(
            ["journalctl", "--no-pager", "--output=short-precise", "--directory", str(directory)],
            capture_output=True,
        )
        return text(shown.stdout) + text(shown.stderr)


def wait_until(condition: Callable[[], object], what: str, seconds: float = 120, every: float = 0.05):
    """Calls `condition` until it gives something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise Timeout(f"after {seconds} s still no {what}")
        time.sleep(every)


def machine_environment() -> dict[str, str]:
    """What commands inside see of the host's environment: nothing that points to the host's files."""
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}


def end_process(pid: int) -> None:
    """Kills a process. Killing the PID 1 of a machine ends all of the machine; killing its nspawn does not."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    wait_until(lambda: not alive(pid), f"end of process {pid}", seconds=STOP_SECONDS)


def end_groups(directory: Path) -> None:
    """Ends whatever is left in the control groups of the machine with this directory, and removes them."""
    try:
        groups = [Path(line) for line in (directory / "groups").read_text().splitlines()]
    except FileNotFoundError:
        return  # It was never booted.
    control_groups.end(groups)
    wait_until(lambda: control_groups.remove(groups), f"end of the control groups of {directory.name}", seconds=STOP_SECONDS)


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def namespace_numbers(pid: int) -> list[int]:
    """The process's number in each pid namespace from ours to its own (proc(5), status, NSpid)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return []
    return next(([int(n) for n in line.split()[1:]] for line in status.splitlines() if line.startswith("NSpid:")), [])


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def shell_line(command: str | Sequence[str]) -> str:
    return command if isinstance(command, str) else shlex.join(command)


def text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


def remove_tree(directory: Path) -> None:
    """Removes a machine's directory, with what is mounted in it."""
    if not directory.exists():
        return
    below = f"{directory}/"
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted((m for m in mounted if m.startswith(below)), key=len, reverse=True):
        if subprocess.run(["umount", point], stderr=subprocess.DEVNULL).returncode != 0:
            subprocess.run(["umount", "--lazy", point], check=True)
    shutil.rmtree(directory)


def reap() -> list[str]:
    """Ends and removes machines whose owner is gone; returns their names."""
    removed = []
    for directory in MACHINES.iterdir() if MACHINES.is_dir() else ():
        if recorded_process(directory / "owner") is not None:
            continue
        for record in ("nspawn", "leader"):
            left_over = recorded_process(directory / record)
            if left_over is not None:
                end_process(left_over)
        end_groups(directory)
        remove_tree(directory)
        removed.append(directory.name)
    return removed


def record_process(file: Path, pid: int) -> None:
    """Writes down which process, in a way that a later process with the same number does not match."""
    file.write_text(f"{pid} {start_time(pid)}\n")


def recorded_process(file: Path) -> int | None:
    """The recorded process if it still lives."""
    try:
        pid, started = map(int, file.read_text().split())
    except (OSError, ValueError):
        return None
    return pid if alive(pid) and start_time(pid) == started else None


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot (proc(5), stat, field 22)."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def main(arguments: list[str]) -> int:
    match arguments:
        case ["reap"]:
            for name in reap():
                print(f"removed {name}")
            return 0
        case ["shell", release]:
            with Machine(release) as machine:
                print(f"{machine.name}: root directory {machine.root}; leave the shell to end it", file=sys.stderr)
                inside = ["nsenter", "--target", str(machine.leader), "--all", "--", "bash", "--login"]
                return subprocess.run(inside, env=machine_environment() | {"TERM": os.environ.get("TERM", "dumb")}).returncode
        case _:
            print("usage: machine.py reap | shell RELEASE", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

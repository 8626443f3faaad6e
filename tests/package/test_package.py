"""The built Debian package, looked at without installing it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = Path(os.environ.get("GUARDD_TEST_PACKAGES", REPOSITORY / "target/deb"))
HIGHEST_EXPOSURE = 3.5
DEMO_SECONDS = 240
NOBODY = 65534


def run(*command: str | Path, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def deb() -> Path:
    found = [path for path in PACKAGES.glob("guardd_*.deb") if "+" not in path.name]
    assert len(found) == 1, f"expected one package in {PACKAGES}: run `tests/run deb`"
    return found[0]


@pytest.fixture(scope="module")
def tree(deb, tmp_path_factory) -> Path:
    """The package's files, in a directory that everybody may enter."""
    target = tmp_path_factory.mktemp("tree")
    target.chmod(0o755)
    open_to_all(target)
    assert run("dpkg-deb", "--extract", deb, target).returncode == 0
    return target


def test_lintian_has_nothing_to_say(deb):
    said = run("lintian", "--tag-display-limit=0", "--fail-on=error,warning", "--display-level=>=warning", "--allow-root", deb)
    assert said.returncode == 0, said.stdout + said.stderr


def test_everything_belongs_to_root_and_nobody_else_may_write(deb):
    listing = run("dpkg-deb", "--contents", deb).stdout.splitlines()
    assert listing
    for line in listing:
        mode, owner = line.split()[:2]
        assert owner == "root/root" and mode[5] != "w" and mode[8] != "w" and "s" not in mode, line


def test_conffiles_are_the_files_in_etc(deb, tree):
    named = run("dpkg-deb", "--info", deb, "conffiles").stdout.split()
    assert sorted(named) == sorted("/" + str(p.relative_to(tree)) for p in (tree / "etc").rglob("*") if p.is_file())


def test_the_same_sources_give_the_same_package(deb, tmp_path):
    again = run(REPOSITORY / "packaging/build-deb", "--output", tmp_path, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert again.returncode == 0, again.stderr
    # Digests: pytest would take hours to show how two packages differ.
    first, second = (hashlib.sha256(p.read_bytes()).hexdigest() for p in (deb, tmp_path / deb.name))
    assert first == second


@pytest.mark.parametrize("program", ["guardd", "guardctl"])
def test_binaries_know_nothing_of_the_machine_that_built_them(tree, program):
    content = (tree / "usr/bin" / program).read_bytes()
    for place in {str(REPOSITORY), str(Path.home()), os.environ.get("CARGO_HOME", str(Path.home() / ".cargo"))}:
        assert place.encode() + b"/" not in content, place


@pytest.mark.parametrize("program", ["guardd", "guardctl"])
def test_version(deb, tree, program):
    version = run(tree / "usr/bin" / program, "--version").stdout.split()
    assert version == [program, deb.name.split("_")[1]]


# The unit and its neighbours


def test_the_unit_is_valid(tree, tmp_path):
    """By the host's systemd, with the programs where they are unpacked."""
    text = (tree / "usr/lib/systemd/system/guardd.service").read_text()
    unit = tmp_path / "guardd.service"
    unit.write_text(text.replace("=/usr/bin/", f"={tree}/usr/bin/"))
    verified = run("systemd-analyze", "--man=no", "verify", unit)
    assert [line for line in verified.stderr.splitlines() if "guardd" in line] == []


def test_the_unit_is_confined(tree):
    unit = tree / "usr/lib/systemd/system/guardd.service"
    said = run("systemd-analyze", "security", "--no-pager", "--offline=true", unit, env={**os.environ, "TERM": "dumb"})
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", said.stdout)
    assert level and float(level.group(1)) <= HIGHEST_EXPOSURE, said.stdout + said.stderr


def test_each_capability_has_its_reason(tree):
    text = (tree / "usr/lib/systemd/system/guardd.service").read_text()
    granted = re.search(r"^CapabilityBoundingSet=(.*)$", text, flags=re.MULTILINE).group(1).split()
    for capability in granted:
        assert re.search(rf"^# +{capability}  ", text, flags=re.MULTILINE), f"no word about {capability}"


def test_sysusers_and_tmpfiles_are_valid(tree):
    (tree / "etc").joinpath("passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (tree / "etc").joinpath("group").write_text("root:x:0:\n")
    try:
        users = run("systemd-sysusers", "--root", tree, "--dry-run", tree / "usr/lib/sysusers.d/guardd.conf")
        assert users.returncode == 0 and "guardd" in users.stdout + users.stderr, users.stderr
    finally:
        (tree / "etc/passwd").unlink()
        (tree / "etc/group").unlink()


def test_logrotate_reads_its_file(tree, tmp_path):
    text = (tree / "etc/logrotate.d/guardd").read_text()
    config = tmp_path / "guardd"
    # The group exists only where the package is installed.
    config.write_text(text.replace("root guardd", "root root"))
    config.chmod(0o644)
    said = run("logrotate", "--debug", "--state", tmp_path / "state", config)
    assert said.returncode == 0 and "error" not in said.stderr.lower(), said.stderr


def test_the_shipped_configuration_is_good(tree):
    checked = run(tree / "usr/bin/guardd", "check-config", tree / "etc/guardd/guardd.toml")
    assert checked.returncode == 0, checked.stderr


# Manual and completions


def subcommands(tree: Path, *command: str) -> list[str]:
    """The subcommands that a program's own help lists."""
    program, *path = command
    text = run(tree / "usr/bin" / program, *path, "--help").stdout
    if f"Usage: {program} " not in text:
        # It runs another program's subcommand, which has pages there.
        return []
    block = re.search(r"^Commands:\n((?:  .*\n|\n)+)", text, flags=re.MULTILINE)
    return [line.split()[0] for line in (block.group(1) if block else "").splitlines() if re.match(r"  \S", line) and line.split()[0] != "help"]


@pytest.mark.parametrize(("program", "section"), [("guardd", "8"), ("guardctl", "1")])
def test_every_subcommand_has_a_manual_page(tree, program, section):
    pages = tree / f"usr/share/man/man{section}"
    todo = [(program,)]
    while todo:
        command = todo.pop()
        assert (pages / f"{'-'.join(command)}.{section}.gz").is_file(), " ".join(command)
        todo += [(*command, name) for name in subcommands(tree, *command)]
    assert subcommands(tree, program)


def test_manual_pages_are_good_roff(tree):
    for page in sorted((tree / "usr/share/man").rglob("*.gz")):
        shown = run("man", "--warnings", "--local-file", page, env={**os.environ, "MANWIDTH": "100", "LC_ALL": "C.UTF-8"})
        assert shown.returncode == 0 and shown.stderr == "", f"{page.name}: {shown.stderr}"


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", "bash-completion/completions/{}"),
        ("zsh", "zsh/vendor-completions/_{}"),
        ("fish", "fish/vendor_completions.d/{}.fish"),
    ],
)
@pytest.mark.parametrize("program", ["guardd", "guardctl"])
def test_completions_are_good_scripts(tree, shell, file, program):
    script = tree / "usr/share" / file.format(program)
    checked = run(shell, "-n" if shell != "fish" else "--no-execute", script)
    assert checked.returncode == 0, checked.stderr


def test_bash_completes_a_subcommand(tree):
    script = tree / "usr/share/bash-completion/completions/guardctl"
    line = 'COMP_WORDS=(guardctl unl); COMP_CWORD=1; _guardctl guardctl unl guardctl; echo "${COMPREPLY[@]}"'
    assert run("bash", "-c", f"source {script}; {line}").stdout.strip() == "unlock"


# The README's demonstration


def test_the_demonstration(tree, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    command = [str(tree / "usr/bin/guardd"), "demo"]
    if os.geteuid() == 0:
        os.chown(home, NOBODY, NOBODY)
        open_to_all(home)
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "LC_ALL": "C.UTF-8"}
    shown = subprocess.run(
        command, env=environment, cwd=home, capture_output=True, text=True, timeout=DEMO_SECONDS, stdin=subprocess.DEVNULL
    )
    sys.stdout.write(shown.stdout)
    assert shown.returncode == 0, shown.stdout + shown.stderr


def open_to_all(directory: Path) -> None:
    """Lets everybody pass through the temporary directories above, which pytest makes private."""
    for parent in directory.parents:
        if parent == Path("/tmp"):
            return
        parent.chmod(parent.stat().st_mode | 0o011)

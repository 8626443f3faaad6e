"""What the git tests share: the built programs, and a state directory whose lock they write themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import lockfile  # noqa: E402
import matrix  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]
GUARDD = Path(os.environ.get("GUARDD_TEST_BINARIES", REPOSITORY / "target/debug")) / "guardd"


@pytest.fixture(scope="session")
def guardd() -> Path:
    assert GUARDD.exists(), f"{GUARDD} is missing: cargo build -p guardd"
    return GUARDD


@pytest.fixture
def state(tmp_path) -> Path:
    directory = tmp_path / "state"
    lockfile.write(directory, "locked")
    return directory


@pytest.fixture
def setting(guardd, state) -> matrix.Setting:
    return matrix.Setting(str(guardd), state)


class Repository:
    """A repository in a test, and the programs called in it."""

    def __init__(self, setting: matrix.Setting, path: Path):
        self.setting, self.path = setting, path

    def sh(self, script: str, status: int | None = 0, **more) -> subprocess.CompletedProcess:
        done = self.setting.sh(script, self.path, check=False, **more)
        assert status is None or done.returncode == status, f"{script}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def git(self, *arguments: str, status: int | None = 0, **options) -> subprocess.CompletedProcess:
        """`guardd git …` in the repository."""
        done = subprocess.run([self.setting.guardd, "git", *arguments], cwd=self.path, env=self.setting.environment, capture_output=True,
                              text=True, errors="replace", **options)
        assert status is None or done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def install(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        return self.git("install", "--environment", "production", "--state-dir", str(self.setting.state), *arguments, **options)

    def write(self, name: str | bytes, content: str | bytes) -> None:
        path = Path(os.fsdecode(os.path.join(os.fsencode(self.path), os.fsencode(name))))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Everything in the repository's own directory but objects: mode and content by name."""
        top = self.path / ".git"
        return {str(p.relative_to(top)): (p.lstat().st_mode, os.fsencode(os.readlink(p)) if p.is_symlink() else p.read_bytes())
                for p in top.rglob("*") if (p.is_symlink() or p.is_file()) and "objects" not in p.parts and p.name != "index"}


@pytest.fixture
def repository(setting, tmp_path) -> Repository:
    """One commit on `main`, and a branch `feature` that is checked out."""
    path = tmp_path / "repository"
    path.mkdir()
    made = Repository(setting, path)
    made.sh("git init -q -b main && echo a >a && git add a && git commit -qm a && git switch -q -c feature")
    return made

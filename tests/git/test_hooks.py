"""Hooks come in front of what is there, and everything is what it was when they go."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import lockfile
import matrix
from conftest import Repository

NAMES = ["pre-commit", "pre-merge-commit", "pre-rebase", "reference-transaction", "pre-push", "pre-receive"]
COMMIT = "git commit -q --allow-empty -m x"


def refused(done: subprocess.CompletedProcess) -> bool:
    return done.returncode != 0 and "guardd: refused" in done.stderr


def test_installed_twice_and_removed_it_is_what_it_was(repository):
    before = repository.files()
    repository.install()
    repository.install()
    status = json.loads(repository.git("status", "--json").stdout)
    assert status["whole"] and [h["name"] for h in status["hooks"]] == NAMES
    assert all(h["state"] == "in_place" and not h["chained"] for h in status["hooks"])
    repository.git("uninstall")
    assert repository.files() == before
    assert "no hooks of guardd" in repository.git("uninstall", status=3).stderr
    assert "no hooks of guardd" in repository.git("status", status=1).stdout


def test_hooks_that_were_there_run_after_ours_and_come_back(repository):
    record = "#!/bin/sh\necho \"$0 $*\" >>../ran\n"
    repository.write(".git/hooks/pre-commit", record)
    repository.write(".git/hooks/reference-transaction", "#!/bin/sh\ncat | sed \"s/^/$1 /\" >>../transactions\n")
    repository.write(".git/hooks/pre-push", "#!/usr/bin/python3\nimport sys\nopen('../pushed', 'w').write(sys.stdin.read() + sys.argv[1])\n")
    repository.write("../elsewhere", record)
    os.symlink("../../../elsewhere", repository.path / ".git/hooks/pre-merge-commit")
    for name in ("pre-commit", "reference-transaction", "pre-push", "../../../elsewhere"):
        (repository.path / ".git/hooks" / name).chmod(0o755)
    before = repository.files()
    repository.install()
    repository.sh(COMMIT)
    top = repository.path.parent
    assert (top / "ran").read_text() == ".git/hooks/pre-commit \n", "the previous hook finds its own name"
    lines = (top / "transactions").read_text().splitlines()
    assert any(line.startswith("prepared ") and line.endswith("refs/heads/feature") for line in lines)
    assert any(line.startswith("committed ") for line in lines), "the previous hook hears of every state"
    repository.sh("git init -q --bare ../origin.git && git push -q ../origin.git HEAD:refs/heads/x")
    pushed = (top / "pushed").read_text()
    assert pushed.startswith("HEAD ") and "refs/heads/x" in pushed and pushed.endswith("../origin.git")
    assert refused(repository.sh("git switch -q main && " + COMMIT, status=None))
    assert (top / "ran").read_text().count("\n") == 1, "what is refused does not reach the previous hook"
    repository.sh("rm -f ../pushed; git switch -q feature; git reset -q --hard main")
    repository.git("uninstall")
    after = repository.files()
    assert {n: v for n, v in after.items() if n.startswith("hooks/")} == {n: v for n, v in before.items() if n.startswith("hooks/")}


def test_a_previous_hook_still_says_no(repository):
    repository.write(".git/hooks/pre-commit", "#!/bin/bash\nexit 7\n")
    (repository.path / ".git/hooks/pre-commit").chmod(0o755)
    repository.install()
    repository.sh(COMMIT, status=1)
    repository.sh(COMMIT + " --no-verify")


def test_a_hook_that_git_would_not_run_is_not_run_by_ours(repository):
    repository.write(".git/hooks/pre-commit", "#!/bin/sh\nexit 7\n")
    (repository.path / ".git/hooks/pre-commit").chmod(0o644)
    repository.install()
    repository.sh(COMMIT)


HUSKY = """#!/usr/bin/env sh
n=$(basename "$0")
s=$(dirname "$(dirname "$0")")/$n
[ ! -f "$s" ] && exit 0
sh -e "$s" "$@"
"""


def test_husky(repository):
    for name in ("pre-commit", "commit-msg"):
        repository.write(f".husky/_/{name}", '#!/usr/bin/env sh\n. "${0%/*}/h"\n')
        (repository.path / f".husky/_/{name}").chmod(0o755)
    repository.write(".husky/_/h", HUSKY)
    repository.write(".husky/pre-commit", "echo husky pre-commit >>../ran\n")
    repository.write(".husky/commit-msg", "echo husky commit-msg $1 >>../ran\n")
    repository.write(".husky/_/.gitignore", "*")
    repository.write(".git/config", (repository.path / ".git/config").read_text() + "[core] # ours\n        hooksPath=.husky/_ ; as husky sets it\n")
    repository.sh("git add . && git -c core.hooksPath=/dev/null commit -qm husky")
    before, tree = repository.files(), {p: p.read_bytes() for p in (repository.path / ".husky").rglob("*") if p.is_file()}
    repository.install()
    assert {p: p.read_bytes() for p in (repository.path / ".husky").rglob("*") if p.is_file()} == tree, "nothing of husky is touched"
    repository.sh(COMMIT)
    assert (repository.path.parent / "ran").read_text() == "husky pre-commit\nhusky commit-msg .git/COMMIT_EDITMSG\n"
    assert refused(repository.sh("git switch -q main && " + COMMIT + " --no-verify", status=None))
    status = json.loads(repository.git("status", "--json").stdout)
    assert status["whole"]
    # npm install sets it again.
    repository.sh("git config core.hooksPath .husky/_")
    assert "core.hooksPath was changed" in repository.git("status", status=1).stdout
    repository.install()
    assert json.loads(repository.git("status", "--json").stdout)["whole"]
    repository.git("uninstall")
    assert repository.sh("git config core.hooksPath").stdout == ".husky/_\n"
    repository.sh("git switch -q feature && git reset -q --hard HEAD~1")
    assert before["config"][1].count(b"hooksPath") == repository.files()["config"][1].count(b"hooksPath")


def test_a_configuration_with_hooks_elsewhere_comes_back_byte_for_byte(repository):
    config = (repository.path / ".git/config").read_text() + "[core] # ours\n        hooksPath=../shared ; for all of them\n"
    repository.write(".git/config", config)
    before = repository.files()
    repository.install()
    assert (repository.path / ".git/config").read_text() != config
    repository.git("uninstall")
    assert repository.files() == before


def test_pre_commit_keeps_working(repository):
    hook = '#!/usr/bin/env bash\n# File generated by pre-commit: https://pre-commit.com\nHERE="$(cd "$(dirname "$0")" && pwd)"\necho "$HERE" >../ran\n[ -x "$HERE/pre-commit.legacy" ] && "$HERE/pre-commit.legacy" "$@"\n'
    repository.write(".git/hooks/pre-commit", hook)
    repository.write(".git/hooks/pre-commit.legacy", "#!/bin/sh\necho legacy >>../ran\n")
    for name in ("pre-commit", "pre-commit.legacy"):
        (repository.path / ".git/hooks" / name).chmod(0o755)
    repository.install()
    repository.sh(COMMIT)
    assert (repository.path.parent / "ran").read_text() == f"{repository.path}/.git/hooks\nlegacy\n"


def test_a_hook_put_over_ours_is_named_and_left_alone(repository):
    repository.install()
    repository.write(".git/hooks/pre-commit", "#!/bin/sh\nexit 0\n")
    hooks = {h["name"]: h["state"] for h in json.loads(repository.git("status", "--json", status=1).stdout)["hooks"]}
    assert hooks["pre-commit"] == "replaced" and hooks["pre-push"] == "in_place"
    assert "changed by somebody else" in repository.git("uninstall", status=3).stdout
    assert (repository.path / ".git/hooks/pre-commit").read_text() == "#!/bin/sh\nexit 0\n"
    assert not (repository.path / ".git/hooks/pre-push").exists()


def test_status_sees_a_hook_that_is_not_executable_or_edited(repository):
    repository.install()
    (repository.path / ".git/hooks/pre-push").chmod(0o644)
    text = repository.path / ".git/hooks/pre-rebase"
    text.write_text(text.read_text() + "exit 0\n")
    hooks = {h["name"]: h["state"] for h in json.loads(repository.git("status", "--json", status=1).stdout)["hooks"]}
    assert (hooks["pre-push"], hooks["pre-rebase"]) == ("not_executable", "altered")


def test_an_empty_repository(setting, tmp_path):
    path = tmp_path / "empty"
    path.mkdir()
    empty = Repository(setting, path)
    empty.sh("git init -q -b main")
    empty.install()
    empty.write("a", "a")
    assert refused(empty.sh("git add a && git commit -qm first", status=None))
    empty.sh("git switch -q -c feature && git commit -qm first")


class TestWhenTheStateCannotBeKnown:
    """Then a branch that was protected at installation does not move, and others do."""

    @pytest.fixture
    def installed(self, repository):
        repository.install()
        return repository

    def refuses(self, repository: Repository, *words: str) -> None:
        for command in (COMMIT, COMMIT + " --no-verify"):
            done = repository.sh(f"git switch -q main && {command}", status=None)
            assert refused(done), done
            for word in (*words, "cannot be known", "main"):
                assert word in done.stderr, done.stderr
        repository.sh("git switch -q feature && " + COMMIT)

    def test_missing(self, installed, state):
        (state / "locks/production.lock").unlink()
        self.refuses(installed, "there is no lock file")

    def test_forged(self, installed, state):
        file = lockfile.write(state, "locked")
        file.write_text(file.read_text().replace('"locked"', '"unlocked"'))
        self.refuses(installed, "not signed by the host key")

    def test_signed_by_another_key(self, installed, state, tmp_path):
        other = lockfile.write(tmp_path / "other", "unlocked")
        shutil.copy(other, state / "locks/production.lock")
        self.refuses(installed, "not signed by the host key")

    def test_of_another_machine(self, installed, state):
        lockfile.write(state, "unlocked", machine_id="0" * 32)
        self.refuses(installed, "another machine")

    def test_of_another_environment(self, installed, state):
        other = lockfile.write(state, "unlocked", environment="staging")
        shutil.copy(other, state / "locks/production.lock")
        self.refuses(installed, "belongs to environment")

    def test_cut_short(self, installed, state):
        file = state / "locks/production.lock"
        file.write_text(file.read_text()[:60])
        self.refuses(installed, "malformed")

    def test_without_the_key(self, installed, state):
        (state / "public/host.pub").unlink()
        self.refuses(installed, "public key cannot be read")

    def test_without_guardd(self, setting, repository, tmp_path):
        copy = tmp_path / "guardd"
        shutil.copy(setting.guardd, copy)
        subprocess.run([copy, "git", "install", "--environment", "production", "--state-dir", setting.state], cwd=repository.path,
                       env=setting.environment, check=True, capture_output=True)
        copy.unlink()
        done = repository.sh("git switch -q main && " + COMMIT, status=None)
        assert refused(done) and "is missing" in done.stderr
        repository.sh("git switch -q feature && " + COMMIT)
        repository.sh("git switch -q -c release/2", status=None)
        assert "release/2" not in repository.sh("git branch").stdout


def test_without_a_lock_nothing_is_installed_but_checks(setting, repository, tmp_path):
    before = repository.files()
    done = repository.git("install", "--state-dir", str(tmp_path / "nowhere"), status=3)
    assert "no environment was ever locked here" in done.stderr and "--checks-only" in done.stderr
    assert repository.files() == before
    repository.git("install", "--checks-only")
    assert sorted(p.name for p in (repository.path / ".git/hooks").iterdir() if not p.name.endswith(".sample")) == ["pre-commit", "pre-merge-commit"]
    repository.sh("git switch -q main && " + COMMIT)


def test_the_environment_is_found_by_its_root(setting, repository, state):
    lockfile.write(state, "locked", root=repository.path)
    lockfile.write(state, "locked", environment="staging", root=Path("/srv/stage"))
    done = json.loads(repository.git("install", "--state-dir", str(state), "--json").stdout)
    assert done["environment"] == "production" and done["branches"] == lockfile.BRANCHES
    assert "raises an alert" in done["past_the_hooks"]
    lockfile.write(state, "locked", root=Path("/srv/app"))
    repository.git("uninstall")
    assert "--environment" in repository.git("install", "--state-dir", str(state), status=2).stderr


def test_the_state_of_now_counts_not_that_of_installation(repository, state):
    repository.install()
    repository.sh("git switch -q main")
    assert refused(repository.sh(COMMIT, status=None))
    lockfile.write(state, "unlocked")
    repository.sh(COMMIT)
    lockfile.write(state, "locked", branches=["feature"])
    repository.sh(COMMIT)
    assert refused(repository.sh("git switch -q feature && " + COMMIT, status=None))
    lockfile.write(state, "locked", branches=[])
    assert refused(repository.sh(COMMIT, status=None)), "no branch named means every branch"


def test_names_that_a_shell_could_misread(setting, repository, state):
    name = "a'b$(id);c&d"
    lockfile.write(state, "locked", branches=[name, "main"])
    repository.sh("git branch \"$NAME\"", NAME=name)
    odd = repository.path.parent / "odd ' dir $(touch y)"
    repository.path.rename(odd)
    moved = Repository(setting, odd)
    moved.install()
    done = moved.sh("git update-ref \"refs/heads/$NAME\" $(git commit-tree -m x HEAD^{tree})", status=None, NAME=name)
    assert refused(done) and name in done.stderr
    assert not any((odd / f).exists() for f in ("x", "y"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_becomes_the_owner(setting, repository, state, tmp_path):
    """A repository whose configuration and hooks would run programs: none runs, and none as root."""
    witness = tmp_path / "witness"
    witness.mkdir(mode=0o777)
    witness.chmod(0o777)
    evil = repository.path / "evil"
    evil.write_text(f"#!/bin/sh\nid -u >>{witness}/$$\n")
    evil.chmod(0o755)
    for key in ("core.fsmonitor", "core.sshCommand", "diff.external", "core.pager", "core.editor", "credential.helper", "filter.x.clean", "filter.x.smudge",
                "filter.x.process", "diff.x.textconv", "diff.x.command", "core.gitProxy", "gpg.program", "uploadpack.packObjectsHook", "core.askPass",
                "core.alternateRefsCommand", "interactive.diffFilter", "pager.config", "pager.diff-index"):
        repository.sh(f"git config {key} '{evil}'")
    for command in ("rev-parse", "diff-index", "cat-file", "config", "ls-files"):
        repository.sh(f"git config alias.{command} '!{evil}'")
    included = repository.path / "included"
    included.write_text(f"[core]\n\tfsmonitor = {evil}\n[diff]\n\texternal = {evil}\n")
    repository.sh(f"git config include.path {included} && git config includeIf.gitdir:/**.path {included}")
    repository.write(".gitattributes", "* filter=x diff=x\n")
    repository.write(".git/hooks/post-checkout", evil.read_text())
    (repository.path / ".git/hooks/post-checkout").chmod(0o755)
    for path in [repository.path, *repository.path.rglob("*")]:
        os.chown(path, 65534, 65534, follow_symlinks=False)
    for path in (tmp_path, *tmp_path.parents):
        if not path.stat().st_mode & 0o001:
            path.chmod(0o711)
    program = tmp_path / "guardd"
    shutil.copy(setting.guardd, program)
    program.chmod(0o755)
    run = lambda *arguments: subprocess.run([program, "git", *arguments], cwd=repository.path, env={**setting.environment, "SUDO_UID": "65534"}, capture_output=True, text=True)
    assert run("install", "--environment", "production", "--state-dir", str(state)).returncode == 0
    assert run("status").returncode == 0
    repository.write("a.json", "{")
    repository.sh("git -c safe.directory='*' -c core.fsmonitor=false -c core.hooksPath=/dev/null -c filter.x.clean=cat -c filter.x.process= add a.json")
    for path in (repository.path / ".git").rglob("*"):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    list(map(Path.unlink, witness.iterdir()))
    for arguments in (["validate"], ["validate", "--rev", "HEAD"], ["validate", "--rev", "HEAD~0..HEAD"]):
        assert run(*arguments).returncode in (0, 1), run(*arguments).stderr
    hook = ["hook", "pre-commit", "--environment", "production", "--state-dir", str(state), "--branch", "main", "--"]
    looked = run(*hook)
    assert looked.returncode == 1 and "a.json:1" in looked.stderr, looked
    owners = {p.stat().st_uid for p in (repository.path / ".git").rglob("*")}
    assert owners == {65534}, "what root installs belongs to the owner"
    assert run("uninstall").returncode == 0
    assert list(witness.iterdir()) == [], "nothing of the repository ran"


def test_a_missing_object_is_not_fetched(repository, tmp_path):
    """A partial clone's remote may be any program: for git that is "fetching", for the checks it is "not there"."""
    witness = tmp_path / "witness"
    repository.write("a.json", "{}")
    repository.sh("git add a.json && git commit -qm x && git switch -q -c other && echo '{' >a.json && git add a.json")
    blob = repository.sh("git rev-parse :a.json").stdout.strip()
    (repository.path / f".git/objects/{blob[:2]}/{blob[2:]}").unlink()
    for key, value in {"extensions.partialClone": "evil", "remote.evil.promisor": "true", "remote.evil.url": f"ext::touch {witness}",
                       "protocol.ext.allow": "always", "core.repositoryFormatVersion": "1"}.items():
        repository.sh(f"git config {key} '{value}'")
    repository.sh("git cat-file blob :a.json", status=None)
    assert witness.exists(), "git itself starts it"
    witness.unlink()
    done = repository.git("validate", "--json")
    assert "the repository does not have it" in done.stdout and not witness.exists()


def test_a_hostile_place_for_hooks_is_not_followed_by_root(setting, repository, state, tmp_path):
    """A symbolic link in the hooks' place leads where its owner may write, and no further."""
    repository.sh("rm -rf .git/hooks && ln -s /etc .git/hooks")
    if os.geteuid() == 0:
        for path in [repository.path, *repository.path.rglob("*")]:
            os.chown(path, 65534, 65534, follow_symlinks=False)
    repository.install(status=5)
    assert not Path("/etc/pre-commit").exists()

"""The bypass matrix: every way to move a branch, in every kind of repository, locked and unlocked, on a protected branch
and on another one. A script of its own with nothing but Python and git, so that it also runs in a booted Debian.

    matrix.py --guardd PROGRAM --state DIRECTORY --lock COMMAND --unlock COMMAND [--kind KIND]…

Prints one JSON object a row: what was done, where, what was expected, what happened.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

PROTECTED, OTHER = "main", "other"
KINDS = ("normal", "worktree", "submodule", "shallow")
UNFINISHED = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply", "sequencer", "MERGE_MSG")

ENVIRONMENT = {
    "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Test", "GIT_AUTHOR_EMAIL": "test@example.org", "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.org", "GIT_EDITOR": "true", "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": "protocol.file.allow", "GIT_CONFIG_VALUE_0": "always",
    "GIT_CONFIG_KEY_1": "init.defaultBranch", "GIT_CONFIG_VALUE_1": "main",
}


@dataclass(frozen=True)
class Row:
    """One operation. `B` in a command is the branch that it is about."""

    name: str
    run: str
    """Shell commands; the last one is the operation."""
    before: str = ""
    """Shell commands that lead up to it and are allowed."""
    undo: str = ""
    """What a refused user does, as the message says, to have his work tree back."""
    moves: bool = True
    """Would the branch be another one afterwards?"""
    stoppable: bool = True
    """False for what no hook sees."""
    seen_since: tuple = (2, 28)
    """The first git that tells its hooks of it."""
    everywhere: bool = False
    """Tried in every kind of repository, not only in a normal one."""
    hint: str = ""
    """Part of the message."""


ROWS = [
    Row("commit", "git commit -qm x", "echo n >n && git add n", "git reset -q && rm n", everywhere=True, hint="git switch -c"),
    Row("commit -a", "git commit -qam x", "echo n >>a", "git checkout -q a"),
    Row("commit of one path", "git commit -qm x a", "echo n >>a", "git checkout -q a"),
    Row("commit --amend", "git commit -q --amend -m x", everywhere=True),
    Row("commit --no-verify", "git commit -q --no-verify -m x", "echo n >n && git add n", "git reset -q && rm n", everywhere=True),
    Row("commit --allow-empty", "git commit -q --no-verify --allow-empty -m x"),
    Row("merge --ff", "git merge -q --ff ahead", everywhere=True, hint="nothing was changed"),
    Row("merge --no-ff", "git merge -q --no-ff -m x side", hint="nothing was changed"),
    Row("merge --no-ff --no-verify", "git merge -q --no-ff --no-verify -m x side", everywhere=True),
    Row("merge of two branches", "git merge -q -m x side third"),
    Row("merge of what is merged", "git merge -q start", moves=False),
    Row("merge --squash", "git merge -q --squash side && git reset -q --hard", moves=False),
    Row("merge --no-commit", "git merge -q --no-ff --no-commit side && git merge --abort", moves=False),
    Row("cherry-pick", "git cherry-pick side", undo="git cherry-pick --abort", everywhere=True, hint="cherry-pick --abort"),
    Row("cherry-pick of several", "git cherry-pick side third", undo="git cherry-pick --abort"),
    Row("cherry-pick --ff", "git cherry-pick --ff ahead", undo="git reset -q --hard"),
    Row("cherry-pick --no-commit", "git cherry-pick --no-commit side && git reset -q --hard", moves=False),
    Row("revert", "git revert --no-edit HEAD", undo="git reset -q --hard", everywhere=True),
    Row("rebase", "git rebase -q side", hint="nothing was changed", everywhere=True),
    Row("rebase --no-verify", "git rebase -q --no-verify side", undo="git rebase --abort"),
    Row("rebase of another branch", "git rebase -q third B", "git switch -q side", hint="nothing was changed"),
    Row("am", "git am -q \"$TOP/side.patch\"", undo="git am --abort", everywhere=True, hint="git am --abort"),
    Row("pull", "git pull -q origin ahead", everywhere=True),
    Row("pull --rebase", "git pull -q --rebase origin side"),
    Row("pull of nothing new", "git pull -q origin start", moves=False),
    Row("reset --hard", "git reset -q --hard ahead", undo="git reset -q --hard", everywhere=True, hint="git reset --hard"),
    Row("reset --soft", "git reset -q --soft ahead", hint="has not moved"),
    Row("reset --mixed", "git reset -q ahead", undo="git reset -q"),
    Row("reset --hard HEAD", "git reset -q --hard HEAD", moves=False),
    Row("branch -f", "git branch -f B ahead", "git switch -q side", "", everywhere=True),
    Row("branch -D", "git branch -q -D B", "git switch -q side", everywhere=True),
    Row("branch -m away", "git branch -m B elsewhere", "git switch -q side"),
    Row("branch -M over it", "git branch -M third B", "git switch -q side", hint="nothing was changed"),
    Row("branch -C over it", "git branch -C third B", "git switch -q side", stoppable=False),
    Row("checkout -B", "git checkout -q -B B ahead", "git switch -q side", "git reset -q --hard; git switch -qf side"),
    Row("switch -C", "git switch -q -C B ahead", "git switch -q side", "git reset -q --hard; git switch -qf side"),
    Row("worktree add -B", "git worktree add -q -f -B B ../wt ahead", "git switch -q side", "git worktree prune"),
    Row("fetch into it", "git fetch -q . ahead:B", "git switch -q side", everywhere=True),
    Row("fetch into it by force", "git fetch -q . +side:B", "git switch -q third"),
    Row("push into it", "git push -q . ahead:B", "git switch -q side"),
    Row("push that deletes it", "git push -q . :B", "git switch -q side"),
    Row("update-ref", "git update-ref refs/heads/B ahead", "git switch -q side", everywhere=True),
    Row("update-ref of HEAD", "git update-ref HEAD ahead", undo="git reset -q"),
    Row("update-ref -d", "git update-ref -d refs/heads/B", "git switch -q side"),
    Row("update-ref --stdin", "printf 'start\\nupdate refs/heads/B %s\\nprepare\\ncommit\\n' $(git rev-parse ahead) | git update-ref --stdin", "git switch -q side"),
    Row("symbolic-ref in its place", "git symbolic-ref refs/heads/B refs/heads/ahead", "git switch -q side", seen_since=(2, 46)),
    Row("fast-import", "printf 'reset refs/heads/B\\nfrom %s\\n\\n' $(git rev-parse ahead) | git fast-import --quiet --force", "git switch -q side", ),
    Row("replay by hand", "git update-ref refs/heads/B $(git commit-tree -p HEAD -m x HEAD^{tree})"),
    Row("stash", "git stash -q && git stash pop -q && git checkout -q a", "echo n >>a", moves=False),
    Row("commit on a detached HEAD", "git commit -q --allow-empty -m x && git switch -q B", "git switch -q --detach", moves=False, everywhere=True),
    Row("branch made elsewhere", "git switch -q -c new && git commit -q --allow-empty -m x && git switch -q B", moves=False, everywhere=True),
    Row("tag", "git tag v1 ahead", moves=False),
    Row("notes", "git notes add -m x", moves=False),
    Row("fetch", "git fetch -q origin", moves=False, everywhere=True),
    Row("gc", "git gc -q --prune=now", moves=False, everywhere=True),
    Row("pack-refs", "git pack-refs --all && git pack-refs --all", moves=False, everywhere=True),
    Row("gc, then delete", "git branch -q -D B", "git gc -q; git switch -q side"),
    Row("push to the origin", "git push -q origin HEAD:refs/heads/B", "git commit -q --allow-empty -m x", moves=True, undo="true"),
    Row("push --force to the origin", "git push -q --force origin side:B", undo="true"),
    Row("push --delete", "git push -q origin --delete B", undo="true"),
    Row("push to another branch", "git push -q origin side:refs/heads/new", moves=False),
    Row("core.hooksPath on the command line", "git -c core.hooksPath=/dev/null commit -q --allow-empty -m x", stoppable=False),
    Row("core.hooksPath in the environment", "GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=core.hooksPath GIT_CONFIG_VALUE_0=/dev/null git commit -q --allow-empty -m x", stoppable=False),
    Row("the file written by hand", "git rev-parse ahead >$(git rev-parse --git-common-dir)/refs/heads/B", "git switch -q side", stoppable=False),
]

PUSHES = {"push to the origin", "push --force to the origin", "push --delete"}
"""The branch that would move is the origin's, which no hook but pre-push guards."""

BARE_ROWS = [
    Row("push", "git push -q bare ahead:B"),
    Row("push --no-verify", "git push -q --no-verify bare ahead:B"),
    Row("push --force", "git push -q --force bare side:B"),
    Row("push --delete", "git push -q bare --delete B"),
    Row("push of several", "git push -q bare ahead:B side:new"),
    Row("push --atomic", "git push -q --atomic bare ahead:B side:new"),
    Row("push of another branch", "git push -q bare side:new", moves=False),
    Row("push of a tag", "git tag v2 && git push -q bare v2", moves=False),
    Row("update-ref", "git -C \"$BARE\" update-ref refs/heads/B $(git rev-parse ahead)"),
    Row("branch -f", "git -C \"$BARE\" branch -f B $(git rev-parse ahead)"),
    Row("branch -D", "git -C \"$BARE\" branch -q -D B"),
    Row("fetch into it", "git -C \"$BARE\" fetch -q \"$PWD\" ahead:B"),
    Row("gc", "git -C \"$BARE\" gc -q", moves=False),
    Row("pack-refs", "git -C \"$BARE\" pack-refs --all", moves=False),
]


@dataclass
class Setting:
    guardd: str
    state: Path
    environment: dict = field(default_factory=lambda: dict(ENVIRONMENT))

    def sh(self, script: str, where: Path, check: bool = True, **more) -> subprocess.CompletedProcess:
        environment = {**self.environment, **{name: str(value) for name, value in more.items()}}
        done = subprocess.run(["sh", "-ec", script], cwd=where, env=environment, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
        if check and done.returncode != 0:
            raise AssertionError(f"{script}\nin {where}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def install(self, where: Path) -> None:
        self.sh(f"{shlex.quote(self.guardd)} git install --environment production --state-dir {shlex.quote(str(self.state))}", where)


TEMPLATE = """
git init -q -b main origin.work && cd origin.work
echo a >a && git add a && git commit -qm a
echo a2 >>a && git commit -qam a2
git branch start; git branch other
git checkout -q -b ahead && echo b >b && git add b && git commit -qm ahead
git checkout -q -b side start && echo s >s && git add s && git commit -qm side
git format-patch -q --stdout -1 >../side.patch
git checkout -q -b third start && echo t >t && git add t && git commit -qm third
git checkout -q main && cd .. && git clone -q --mirror origin.work origin.git
git -C origin.git config receive.denyDeleteCurrent ignore
"""


def make(setting: Setting, kind: str, top: Path) -> Path:
    """A repository of that kind below `top`, its hooks not yet installed."""
    clone = "git remote set-head origin -d; for b in other ahead side third start; do git branch -q $b origin/$b; done"
    if kind == "bare":
        setting.sh("git clone -q origin.git work && git clone -q --bare origin.git bare.git && git -C bare.git config receive.denyDeleteCurrent ignore", top)
        setting.sh(f"{clone}; git remote add bare ../bare.git", top / "work")
        return top / "bare.git"
    if kind == "shallow":
        setting.sh("git clone -q --depth=2 --no-single-branch file://$PWD/origin.git work", top)
        setting.sh(clone, top / "work")
        return top / "work"
    if kind == "submodule":
        setting.sh("git init -q super && cd super && git submodule --quiet add ../origin.git sub && git commit -qm s", top)
        setting.sh(clone, top / "super/sub")
        return top / "super/sub"
    setting.sh("git clone -q origin.git work", top)
    setting.sh(clone, top / "work")
    if kind == "worktree":
        setting.sh("git switch -q -c base && git worktree add -q ../tree main", top / "work")
        return top / "tree"
    return top / "work"


def facts(setting: Setting, where: Path) -> dict:
    """What has to be the same after a refusal."""
    ask = lambda command: setting.sh(command, where, check=False).stdout
    return {
        "references": ask("git for-each-ref --format='%(refname) %(objectname) %(symref)' refs/heads refs/tags"),
        "head": ask("git rev-parse --symbolic-full-name HEAD"),
        "status": ask("git status --porcelain"),
    }


def unfinished(setting: Setting, where: Path) -> list[str]:
    found = []
    for name in UNFINISHED:
        path = where / setting.sh(f"git rev-parse --git-path {name}", where).stdout.strip()
        if path.exists() and name != "MERGE_MSG":
            found.append(name)
    for kind in ("--git-dir", "--git-common-dir"):
        directory = where / setting.sh(f"git rev-parse {kind}", where).stdout.strip()
        found += [str(lock.relative_to(directory)) for lock in directory.rglob("*.lock")]
    return sorted(set(found))


def one(setting: Setting, version: tuple, row: Row, kind: str, state: str, branch: str, template: Path) -> dict:
    """Does one operation in a fresh copy and says what came of it."""
    held = state == "locked" and branch == PROTECTED and row.moves
    expected = "allowed"
    if held:
        expected = "refused" if row.stoppable and version >= row.seen_since else "passes"
    said = {"operation": row.name, "kind": kind, "state": state, "branch": branch, "expected": expected, "problems": []}
    with tempfile.TemporaryDirectory(prefix="guardd-matrix.") as scratch:
        top = Path(scratch) / "t"
        shutil.copytree(template, top, symlinks=True)
        fix_worktrees(setting, top, template)
        where = {"worktree": top / "tree", "submodule": top / "super/sub"}.get(kind, top / "work")
        repository = top / "bare.git" if kind == "bare" else where
        # A branch like any other: what is done to it is what would be done to the protected one.
        script = lambda text: with_branch(text, branch)
        more = {"TOP": top, "BARE": repository}
        if kind != "bare":
            setting.sh(f"git switch -q {branch}", where)
        if row.before:
            prepare(setting, row, where, script, more)
        before = facts(setting, repository)
        origin_before = facts(setting, top / "origin.git")["references"]
        done = setting.sh(script(row.run), where, check=False, **more)
        said["status"], said["said"] = done.returncode, (done.stdout + done.stderr)[-1500:]
        after = facts(setting, repository)
        problems = said["problems"]
        moved = branch_line(after, branch) != branch_line(before, branch)
        if row.name in PUSHES and kind != "bare":
            moved = facts(setting, top / "origin.git")["references"] != origin_before
        if expected == "refused":
            if done.returncode == 0:
                problems.append("it was not refused")
            if moved:
                problems.append("the branch moved")
            for words in ("guardd: refused", "locked by", "release 4.2", f"branch {branch}", row.hint):
                if words and words not in said["said"].replace("remote: ", ""):
                    problems.append(f"the message does not say {words!r}")
            undo = setting.sh(script(row.undo) or "true", where, check=False, **more)
            if undo.returncode != 0:
                problems.append(f"the way out failed: {undo.stderr}")
            back = facts(setting, repository)
            expected_after = before if not row.before or "switch" in row.before else None
            if expected_after and back != before:
                problems.append(f"not as before: {before} {back}")
            if branch_line(back, branch) != branch_line(before, branch):
                problems.append("the branch moved by the way out")
            left = unfinished(setting, repository) if kind != "bare" else []
            if left:
                problems.append(f"left half done: {left}")
        else:
            if done.returncode != 0:
                problems.append("it failed")
            if row.moves and not moved:
                problems.append("the branch did not move")
        fsck = setting.sh("git fsck --no-dangling --no-progress", repository, check=False)
        if fsck.returncode != 0:
            problems.append(f"fsck: {fsck.stdout}{fsck.stderr}")
    return said


def prepare(setting: Setting, row: Row, where: Path, script, more: dict) -> None:
    """What leads up to an operation goes past the hooks where it is a commit itself."""
    if "commit" in row.before:
        setting.sh(script(row.before).replace("git commit", "git -c core.hooksPath=/dev/null commit"), where, **more)
    else:
        setting.sh(script(row.before), where, **more)


def with_branch(text: str, branch: str) -> str:
    """Puts the branch in the place of the word `B`, which stands alone or in a reference."""
    import re
    return re.sub(r"(?<![\w-])B(?![\w=])", branch, text)


def branch_line(found: dict, branch: str) -> list[str]:
    return [line for line in found["references"].splitlines() if line.startswith(f"refs/heads/{branch} ")]


def fix_worktrees(setting: Setting, top: Path, template: Path) -> None:
    """Absolute paths of the template in a copy of it."""
    for file in [*top.glob("*/.git"), *top.glob("*/.git/worktrees/*/gitdir"), *top.glob("*/.git/config"), *top.glob("*.git/config"),
                 *top.glob("super/.git/modules/*/config")]:
        if file.is_file():
            file.write_text(file.read_text().replace(str(template), str(top)))


def git_version(setting: Setting) -> tuple:
    words = setting.sh("git version", Path("/")).stdout.split()
    return tuple(int(n) for n in words[2].split(".")[:2])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--guardd", required=True)
    parser.add_argument("--state", required=True, type=Path)
    parser.add_argument("--lock", required=True, help="brings the environment into the state `locked`")
    parser.add_argument("--unlock", required=True)
    parser.add_argument("--kind", action="append", choices=(*KINDS, "bare"))
    parser.add_argument("--only", help="only the rows of this name")
    asked = parser.parse_args()
    setting = Setting(asked.guardd, asked.state)
    version = git_version(setting)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="guardd-matrix.") as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:
        templates = {}
        for state, command in (("unlocked", asked.unlock), ("locked", asked.lock)):
            subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)
            work = []
            for kind in asked.kind or (*KINDS, "bare"):
                if kind not in templates:
                    top = Path(scratch) / kind
                    top.mkdir()
                    setting.sh(TEMPLATE, top)
                    setting.install(make(setting, kind, top))
                    templates[kind] = top
                rows = BARE_ROWS if kind == "bare" else [r for r in ROWS if kind == "normal" or r.everywhere]
                for row in rows:
                    if asked.only and row.name != asked.only:
                        continue
                    for branch in (PROTECTED, OTHER):
                        if state == "unlocked" and branch == OTHER:
                            continue
                        work.append(pool.submit(one, setting, version, row, kind, state, branch, templates[kind]))
            for cell in work:
                said = cell.result()
                failed += bool(said["problems"])
                print(json.dumps(said), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

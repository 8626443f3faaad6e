"""Every way to move a branch, in every kind of repository, against the installed hooks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("kind", ["normal", "worktree", "submodule", "shallow", "bare"])
def test_no_operation_gets_around_the_lock(guardd, state, kind):
    lock = f"{sys.executable} {HERE / 'lockfile.py'} {state}"
    done = subprocess.run(
        [sys.executable, HERE / "matrix.py", "--guardd", guardd, "--state", state, "--lock", f"{lock} locked", "--unlock", f"{lock} unlocked",
         "--kind", kind],
        capture_output=True, text=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) > 40, done.stderr
    wrong = [f"{r['operation']} ({r['state']} {r['branch']}, {r['expected']}): {r['problems']}\n{r['said']}" for r in rows if r["problems"]]
    assert not wrong, "\n".join(wrong)
    assert {"refused", "allowed"} <= {r["expected"] for r in rows}

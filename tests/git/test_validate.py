"""Syntax and secrets of what is staged: the index, not the work tree; what could not be checked is said."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as xml

import pytest

from conftest import REPOSITORY

AWS = "AKIA" + "Q7RST2UVWX4YZAB5"
"""Put together here, so that this file is none of those that it tests for."""


def validate(repository, *arguments: str, status: int | None = None) -> dict:
    """The report; that nobody knows the values of sensitive files here is taken out of it, where it has to be said."""
    done = repository.git("validate", "--json", *arguments, status=status)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert found["ok"] == (done.returncode == 0)
    not_compared = [u for u in found["unchecked"] if u["what"] == "values of sensitive files"]
    assert len(not_compared) <= 1 and all(u["path"] is None for u in not_compared)
    found["unchecked"] = [u for u in found["unchecked"] if u not in not_compared]
    return found


def findings(found: dict) -> list[tuple]:
    return [(f["path"], f["line"], f["rule"], f["level"]) for f in found["findings"]]


GOOD = {
    "a.json": "{}\n", "tsconfig.json": "// c\n{\"a\": 1,}\n", "b.yml": "a: 1\n", "c.toml": "a = 1\n", "d.py": "match x:\n    case 1: pass\n",
    "e.sh": "#!/bin/sh\necho $(date)\n", "f.bash": "a=(1 2)\n[[ $a ]]\n", "nginx/x.conf": "server { listen 80; }\n",
    "docker-compose.yml": "services: {web: {image: \"nginx:${TAG:-1}\"}}\n", ".env.example": "A=\n",
}
BAD = {
    "a.json": ("{\n\"a\": 1,\n}\n", 3, "json"), "b.yml": ("a: 1\na: 2\n", 2, "yaml"), "c.toml": ("a = 1\nb = \n", 2, "toml"),
    "d.py": ("x = 1\ndef f(:\n", 2, "python"), "e.sh": ("echo\nif true; then\n", None, "shell"), "f.bash": ("a=(1\n", None, "shell"),
    "nginx/x.conf": ("server {\n listen 80\n}\n", 2, "nginx"), "docker-compose.yml": ("servces:\n  web: {}\n", 1, "compose"),
    ".env.example": ("A=\n;x\n", 2, "dotenv"),
}


def test_good_files_pass(repository):
    for name, text in GOOD.items():
        repository.write(name, text)
    repository.sh("git add .")
    found = validate(repository, status=0)
    assert found["findings"] == [] and found["unchecked"] == [] and found["checked"] == len(GOOD)


def test_bad_files_are_named_with_their_line(repository):
    for name, (text, _, _) in BAD.items():
        repository.write(name, text)
    repository.sh("git add .")
    found = validate(repository, status=1)
    errors = {f["path"]: f for f in found["findings"] if f["level"] == "error"}
    for name, (_, line, rule) in BAD.items():
        assert errors[name]["rule"] == rule, name
        assert line is None or errors[name]["line"] == line, errors[name]
    assert errors["d.py"]["column"] and "def f(:" in errors["d.py"]["source"]
    assert errors["nginx/x.conf"]["expected"]


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_javascript(repository):
    repository.write("a.js", "const x = require('x'); return 1;\n")
    repository.write("b.js", "import x from 'x';\nexport default await x;\n")
    repository.write("c.mjs", "export const a = 1;\n")
    repository.write("d.js", "const a = ;\n")
    repository.write("e.js", "process.exit(9); require('fs').writeFileSync('ran', '');\n")
    repository.write("f.js", "const a = <b/>;\n")
    repository.sh("git add .")
    found = validate(repository, status=1)
    assert findings(found) == [("d.js", 1, "javascript", "error")]
    assert [u["path"] for u in found["unchecked"]] == ["f.js"]
    assert not (repository.path / "ran").exists()


def test_nothing_is_executed(repository):
    witness = repository.path / "ran"
    repository.write("a.py", f"open({str(witness)!r}, 'w')\n")
    repository.write("sitecustomize.py", f"open({str(witness)!r}, 'w')\n")
    repository.write("b.sh", f"touch {witness}\n$(touch {witness})\n")
    repository.write("c.bash", f"x=`touch {witness}`\n")
    repository.write(".env.example", "A=\n")
    repository.sh("git add .")
    validate(repository, status=0)
    assert not witness.exists()


def test_the_index_counts_not_the_work_tree(repository):
    repository.write("a.json", "{}")
    repository.sh("git add a.json")
    repository.write("a.json", "{")
    validate(repository, status=0)
    repository.sh("git add a.json")
    repository.write("a.json", "{}")
    assert findings(validate(repository, status=1)) == [("a.json", 1, "json", "error")]
    repository.install()
    done = repository.sh("git commit -qm x", status=1)
    assert "a.json:1:1: error:" in done.stderr and "guardd: refused: 1 files" in done.stderr
    # A partial commit has an index of its own.
    repository.write("b.json", "{}")
    repository.sh("git add b.json && git commit -qm x b.json")


def test_what_could_not_be_checked_is_listed(repository, tmp_path):
    for name, text in {"a.ts": "let a: number", "b.php": "<?php", "big.json": "[" + "1," * 5_000_000 + "1]", "chart.yaml": "{{ if x }}\na: 1\n",
                       "l.json": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"}.items():
        repository.write(name, text)
    repository.sh("git add .")
    found = validate(repository, status=0)
    why = {u["path"]: u["why"] for u in found["unchecked"]}
    assert set(why) == {"a.ts", "big.json", "chart.yaml", "l.json"} | ({"b.php"} if not shutil.which("php") else set())
    assert "no parser for TypeScript" in why["a.ts"] and "LFS" in why["l.json"]


def test_names_and_contents_of_every_kind(repository):
    """Blanks, newlines, invalid UTF-8 in names; binary files, symbolic links, submodules, deletions, renames, mode changes."""
    for name in (b"a b.json", b"new\nline.json", b"\xff\xfe.json", b"-rf.json", b"quote'\".json", b"dir with/ x.json"):
        repository.write(name, "{")
    repository.write("binary.json", b"\0\1\2")
    repository.write("latin1.json", "{\"a\": \"ä\"}".encode("latin-1"))
    repository.write("gone.json", "{")
    repository.write("renamed.yml", "a: [\n")
    repository.sh("ln -s nowhere{ link.json && git add . && git commit -qm all --no-verify && git rm -q gone.json && git mv renamed.yml other.yml && chmod +x -- -rf.json && git add . && git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),module.json")
    found = validate(repository, status=1)
    assert {f["path"] for f in found["findings"]} == {"other.yml", "-rf.json"}
    everything = validate(repository, "--rev", "HEAD", status=1)
    paths = {f["path"] for f in everything["findings"]}
    assert {"a b.json", "new\\x0aline.json", "\\xff\\xfe.json", "quote'\".json", "dir with/ x.json", "binary.json", "latin1.json"} - paths == set()
    assert "link.json" not in paths


def test_an_empty_repository(setting, tmp_path):
    from conftest import Repository

    path = tmp_path / "empty"
    path.mkdir()
    empty = Repository(setting, path)
    empty.sh("git init -q")
    assert validate(empty, status=0)["files"] == 0
    empty.write("a.json", "{")
    empty.sh("git add .")
    assert findings(validate(empty, status=1)) == [("a.json", 1, "json", "error")]


def test_secrets(repository):
    repository.write(".env.prod", "PASSWORD=hunter2\n")
    repository.write("id", "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nxx\n")
    repository.write("config.py", f"x = 1\nKEY = '{AWS}'\n")
    repository.sh("git add .")
    done = repository.git("validate", status=1)
    assert AWS not in done.stdout and "hunter2" not in done.stdout
    assert findings(validate(repository)) == [(".env.prod", None, "env-file", "error"), ("config.py", 2, "token", "error"), ("id", 1, "private-key", "error")]
    repository.install()
    done = repository.sh("git commit -qm x", status=1)
    assert AWS not in done.stderr and "an AWS access key id" in done.stderr
    repository.sh("git commit -qm x --no-verify")
    # Lines that were there before are somebody else's commit.
    repository.write("config.py", f"x = 2\nKEY = '{AWS}'\n")
    repository.sh("git add . && git commit -qm y")


def test_a_tracked_env_file_is_told_with_every_commit_and_stops_only_its_own(repository):
    """Also deep in the tree, in other cases of letters, and where the commit is about something else."""
    for name in ("deploy/.ENV.prod", "a b/prod.env"):
        repository.write(name, "PASSWORD=hunter2\n")
    repository.write("deploy/.env.example", "PASSWORD=x\n")
    repository.write("empty/.env", "# nothing\n")
    repository.sh("git add . && git commit -qm x && echo x >other && git add other")
    found = validate(repository, "--staged", status=0)
    assert findings(found) == [("a b/prod.env", None, "env-file", "warning"), ("deploy/.ENV.prod", None, "env-file", "warning")]
    assert "hunter2" not in json.dumps(found) and "git rm --cached" in found["findings"][0]["expected"]
    repository.install()
    done = repository.sh("git commit -qm y")
    assert "deploy/.ENV.prod: warning: a file of values" in done.stderr
    repository.write("a b/prod.env", "PASSWORD=hunter3\n")
    repository.sh("git add .")
    assert ("a b/prod.env", None, "env-file", "error") in findings(validate(repository, "--staged", status=1))
    allow = '[[allow]]\nrule = "env-file"\npath = "deploy/"\nreason = "of the tests"\nuntil = 2099-01-01\n'
    repository.sh("git rm -q --cached 'a b/prod.env'")
    repository.write(".guardd-allow.toml", allow)
    repository.sh("git add .guardd-allow.toml")
    assert findings(validate(repository, "--staged", status=0)) == []
    assert {f[0] for f in findings(validate(repository, "--rev", "HEAD", status=1))} >= {"deploy/.ENV.prod"}


def test_that_no_environment_is_known_is_said(repository):
    """What could not be compared is never passed."""
    repository.write("a.py", "long_enough_to_be_compared = 1\n")
    repository.sh("git add .")
    said = repository.git("validate", status=0).stdout
    assert "unchecked: values of sensitive files, as no environment guards this repository: --environment names one" in said
    repository.install()
    said = repository.git("validate", status=0).stdout
    assert "values of sensitive files" in said and "no environment guards" not in said


def test_a_secret_that_came_and_went_within_a_range(repository):
    repository.write("a.py", f"K = '{AWS}'\n")
    repository.sh("git add . && git commit -qm in && echo 'K = 1' >a.py && git commit -qam out")
    assert findings(validate(repository, "--rev", "main..HEAD", status=1)) == [("a.py", 1, "token", "error")]
    validate(repository, "--rev", "HEAD", status=0)


def test_allowances_have_a_reason_and_an_end(repository):
    repository.write("tests/a.py", f"KEY = '{AWS}'\n")
    repository.sh("git add .")
    fingerprint = validate(repository, status=1)["findings"][0]["message"].split("[")[1].rstrip("]")
    allow = f'[[allow]]\nrule = "token"\npath = "tests/"\nfingerprint = "{fingerprint}"\nreason = "of the tests"\nuntil = 2099-01-01\n'
    repository.write(".guardd-allow.toml", allow)
    validate(repository, status=1)  # not staged: it does not count
    repository.sh("git add .")
    validate(repository, status=0)
    for wrong in (allow.replace("2099", "2020"), allow.replace(fingerprint, "0" * 16), allow.replace("reason", "reasons"), allow.replace("tests/", "src/")):
        repository.write(".guardd-allow.toml", wrong)
        repository.sh("git add .")
        found = validate(repository, status=1)
        assert any(f["rule"] == "token" for f in found["findings"]), wrong
    repository.write(".guardd-allow.toml", allow.replace("2099", "2020"))
    repository.sh("git add .")
    assert "ended on 2020-01-01" in validate(repository)["findings"][0]["message"]


def test_own_validators(repository, tmp_path, setting):
    configuration = tmp_path / "guardd.toml"
    configuration.write_text(f"version = 1\n[environments.production]\nroot = '/srv/app'\n[environments.production.git.validate]\n\"*.sql\" = ['/bin/sh', '-c', 'grep -q SELECT || {{ echo \"$0:7: no SELECT\"; exit 1; }}']\n\"*.tf\" = ['/nonexistent/tool']\n")
    configuration.chmod(0o600)
    repository.write("a.sql", "SELECT 1;\n")
    repository.write("b.sql", "DROP TABLE x;\n")
    repository.write("c.tf", "x\n")
    repository.sh("git add .")
    setting.environment["GUARDD_CONFIG"] = str(configuration)
    found = validate(repository, "--environment", "production", status=1)
    assert findings(found) == [("b.sql", 7, "own", "error")]
    assert any(u["path"] == "c.tf" and "not installed" in u["why"] for u in found["unchecked"])
    setting.environment["GUARDD_CONFIG"] = str(tmp_path / "nowhere")
    assert any(u["what"] == "own validators" for u in validate(repository, "--environment", "production", status=0)["unchecked"])


def test_formats_of_reports(repository):
    repository.write("a <b>.json", "{\n")
    repository.write("c.tsx", "x")
    repository.write(b"\xff\n.json", "{")
    repository.write(".env.example", "A=1 \nexport B=\x07\n")
    repository.sh("git add .")
    log = json.loads(repository.git("validate", "--sarif", status=1).stdout)
    is_sarif(log)
    uris = [r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in log["runs"][0]["results"]]
    assert {"a%20%3Cb%3E.json", "%FF%0A.json"} <= set(uris)
    text = repository.git("validate", "--junit", status=1).stdout
    suite = is_junit(text)
    assert (suite.get("failures"), suite.get("skipped")) == ("2", "2")
    assert "--sarif" in repository.git("validate", "--json", "--sarif", status=2).stderr
    assert repository.git("validate", "--rev", "--output=/tmp/x", status=None).returncode in (2, 5)
    repository.git("validate", "--rev", "nosuch", status=5)
    repository.sh("git reset -q")
    is_sarif(json.loads(repository.git("validate", "--sarif", status=0).stdout))
    is_junit(repository.git("validate", "--junit", status=0).stdout)


def is_sarif(log: dict) -> None:
    """What the schema of SARIF 2.1.0 requires of what is there, and what code scanning requires besides."""
    assert set(log) == {"$schema", "version", "runs"} and log["version"] == "2.1.0" and log["$schema"].endswith("sarif-2.1.0.json")
    for run in log["runs"]:
        driver = run["tool"]["driver"]
        assert driver["name"] == "guardd" and re.fullmatch(r"\d+\.\d+\.\d+", driver["semanticVersion"])
        rules = [rule["id"] for rule in driver["rules"]]
        assert len(rules) == len(set(rules)) and all(rule["shortDescription"]["text"] for rule in driver["rules"])
        for invocation in run["invocations"]:
            assert invocation["executionSuccessful"] is True
            for notification in invocation["toolExecutionNotifications"]:
                assert notification["message"]["text"] and notification["level"] in ("none", "note", "warning", "error")
                are_places(notification["locations"])
        for result in run["results"]:
            assert result["message"]["text"] and result["level"] in ("none", "note", "warning", "error")
            assert rules[result["ruleIndex"]] == result["ruleId"]
            assert result["locations"] and all(result["partialFingerprints"].values())
            are_places(result["locations"])


def are_places(locations: list) -> None:
    for location in locations:
        place = location["physicalLocation"]
        # A URI reference: relative, and only of characters that one may have (RFC 3986).
        assert re.fullmatch(r"(?:[A-Za-z0-9._~/-]|%[0-9A-F]{2})+", place["artifactLocation"]["uri"])
        assert not place["artifactLocation"]["uri"].startswith("/")
        region = place.get("region", {"startLine": 1})
        assert all(isinstance(value, int) and value >= 1 for value in region.values()) and "startLine" in region


def is_junit(text: str) -> xml.Element:
    """The form that Jenkins' schema and GitLab read; control characters would be no XML at all."""
    top = xml.fromstring(text)
    assert top.tag == "testsuites" and [e.tag for e in top] == ["testsuite"]
    suite = top.find("testsuite")
    assert suite.get("name")
    cases = suite.findall("testcase")
    assert all(case.get("name") and case.get("classname") for case in cases)
    assert {e.tag for e in suite} <= {"testcase", "system-out"}
    for attribute, found in (("tests", cases), ("failures", suite.findall("testcase/failure")), ("errors", []), ("skipped", suite.findall("testcase/skipped"))):
        assert int(suite.get(attribute)) == len(found), attribute
    assert all(e.get("message") for e in suite.findall("testcase/*"))
    return suite


def test_many_files(repository):
    """So many that answers and questions of git do not fit into its pipes."""
    for i in range(3_000):
        repository.write(f"src/{i % 100}/{i}.{['json', 'py', 'yml', 'txt'][i % 4]}", ["{\"a\": 1}\n", "x = 1\n", "a: 1\n", "text\n"][i % 4])
    repository.write("src/7/bad.py", "def\n")
    repository.sh("git add .")
    found = validate(repository, status=1)
    assert (found["files"], found["checked"]) == (3_001, 2_251)
    assert findings(found) == [("src/7/bad.py", 1, "python", "error")]


def test_a_plain_server_checks_what_is_pushed(setting, repository, tmp_path):
    """The hook of docs/ci.md: objects that are pushed are in a quarantine until it says yes."""
    text = (REPOSITORY / "docs/ci.md").read_text().split("## A plain server")[1].split("```sh\n")[1].split("```")[0]
    repository.sh("git init -q --bare ../server.git")
    hook = tmp_path / "server.git/hooks/pre-receive"
    hook.write_text(text.replace("guardctl git", f"{setting.guardd} git"))
    hook.chmod(0o755)
    repository.sh("git push -q ../server.git main")
    repository.write("a.json", "{")
    repository.sh("git add . && git commit -qm bad")
    done = repository.sh("git push -q ../server.git feature HEAD:main", status=1)
    assert "a.json:1:1: error" in done.stderr
    repository.sh("echo '{}' >a.json && git commit -qam good && git push -q ../server.git feature")


@pytest.mark.parametrize("of", ["a pull request", "a push"])
def test_what_the_documentation_says_for_ci(setting, repository, of):
    """The commands of docs/ci.md, as a runner calls them."""
    text = (REPOSITORY / "docs/ci.md").read_text()
    github = re.search(r"- run: (guardctl git validate .*) >", text)[1]
    gitlab = re.search(r"    - (guardctl git validate .*) >", text)[1]
    repository.write("old.json", "{")
    repository.sh("git add . && git commit -qm old && git update-ref refs/remotes/origin/main HEAD")
    base = repository.sh("git rev-parse HEAD").stdout.strip()
    repository.write("new.json", "{")
    repository.sh("git add . && git commit -qm new")
    whole = of == "a push"
    values = {"BASE": "" if whole else "main", "CI_MERGE_REQUEST_DIFF_BASE_SHA": "" if whole else base}
    call = lambda line: repository.sh(line.replace("guardctl", setting.guardd), status=1, **values).stdout
    log = json.loads(call(github))
    is_sarif(log)
    wanted = {"new.json", "old.json"} if whole else {"new.json"}
    assert {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in log["runs"][0]["results"]} == wanted
    assert {case.get("name") for case in is_junit(call(gitlab)).findall("testcase[failure]")} == wanted

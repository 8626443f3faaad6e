"""A real application of tens of thousands of files, and copies of /etc and /usr/share: every change is seen, everywhere."""

from __future__ import annotations

import time

import pytest

import application
from guard import ENVIRONMENT, ROOT, UNIT, Guard

HOST_ROOT = "/srv/host"
HOST_ENVIRONMENT = "host"
FILES_FOR_MEMORY = 100_000
MEMORY_MIB = 60


@pytest.fixture(scope="module")
def guard(machine) -> Guard:
    guard = Guard(machine)
    machine.copy_in(application.full(), ROOT)
    machine.run(f"mkdir {HOST_ROOT} && cp -a /etc /usr/share {HOST_ROOT}")
    guard.install()
    guard.configure()
    guard.configure(f'[environments.{HOST_ENVIRONMENT}]\nroot = "{HOST_ROOT}"\nseal = "none"\n', HOST_ENVIRONMENT)
    guard.start()
    for environment in (ENVIRONMENT, HOST_ENVIRONMENT):
        begin = time.monotonic()
        result = guard.ctl("lock", environment, "--reason", "first lock", "--json").json()
        print(f"locked {environment}: {result['protected']} in {time.monotonic() - begin:.1f} s")
    return guard


def test_tens_of_thousands_of_files_are_protected(guard):
    assert guard.status()["protected"]["files"] > 40_000
    assert guard.status(HOST_ENVIRONMENT)["protected"]["files"] > 2_000


def test_a_check_finds_nothing_and_makes_no_gap(guard):
    for environment in (ENVIRONMENT, HOST_ENVIRONMENT):
        check = guard.ctl("check", environment, "--json").json()
        assert check["clean"], check["findings"][:5]
        print(f"check {environment}: {check['files']} files, {check['bytes']} bytes, {check['duration_ms']} ms")
        assert guard.status(environment)["watch"]["gaps"] == []
    assert guard.alerts() == []


def test_memory_with_100_000_files_and_idle_cpu(guard):
    run = guard.machine.run
    modules = f"{ROOT}/frontend/node_modules"
    guard.ctl("unlock", ENVIRONMENT, "--reason", "more files", "--maintainer", "test", "--for", "30m")
    run(f"cp -a {modules} {ROOT}/frontend/more")
    guard.ctl("lock", ENVIRONMENT, "--reason", "more files")
    files = guard.status()["protected"]["files"]
    assert files >= FILES_FOR_MEMORY, files
    since = guard.status()["last_rehash"]["finished_at"] if guard.status()["last_rehash"] else ""
    run(["systemctl", "restart", UNIT])
    guard.wait_ready()
    guard.wait_rehashed(since)
    pid = guard.machine.host_pid(guard.machine.main_pid(UNIT))
    resident = resident_mib(pid)
    spent = cpu_seconds(pid)
    time.sleep(10)
    idle = (cpu_seconds(pid) - spent) / 10
    print(f"{files} files: {resident['VmRSS']:.1f} MiB resident ({resident['RssAnon']:.1f} anonymous, peak {resident['VmHWM']:.1f});"
          f" idle: {idle:.2%} of a core")
    assert resident["VmRSS"] < MEMORY_MIB


def test_an_editor(guard):
    guard.machine.run(
        ["vim.tiny", "-es", "-u", "NONE", "-c", "%s/443/8443/", "-c", "w!", "-c", "q!", f"{ROOT}/deployment/nginx.conf.template"]
    )
    guard.wait_everywhere("deployment/nginx.conf.template", "content")


def test_sed_in_place(guard):
    guard.machine.run(f"sed -i s/False/True/ {ROOT}/backend/app/settings.py")
    guard.wait_everywhere("backend/app/settings.py", "content", "inode")


def test_a_secret_changes_and_stays_secret(guard):
    guard.machine.run(f"sed -i s/not-a-password/leaked-password/ {ROOT}/.env.prod")
    guard.wait_everywhere(".env.prod", "content")
    told = guard.ctl("alerts").out + guard.ctl("diff", ENVIRONMENT, status=1).out + "\n".join(guard.log_lines())
    assert "password" not in told


def test_a_program_in_place(guard):
    begin = time.monotonic()
    guard.machine.run(["python3", "-c", f"open('{ROOT}/backend/app/urls.py', 'a').write('# changed\\n')"])
    guard.wait_log("path=backend/app/urls.py")
    print(f"in the log file {time.monotonic() - begin:.3f} s after the command was given")
    guard.wait_everywhere("backend/app/urls.py", "content", "size")


def test_chmod(guard):
    guard.machine.run(["chmod", "0777", f"{ROOT}/scripts/deploy.sh"])
    seen = guard.wait_everywhere("scripts/deploy.sh", "mode")
    assert seen.finding["after"]["mode"] == "0777"


def test_rsync(guard):
    guard.machine.run(f"cp -r {ROOT}/frontend/src /tmp/src && chmod -R u+w /tmp/src")
    guard.machine.run("for i in $(seq 500); do echo export const n = $i > /tmp/src/extra$i.ts; done; echo >> /tmp/src/App.tsx")
    guard.quiet()
    before = guard.last_alert()
    guard.machine.run(["rsync", "--archive", "--checksum", "/tmp/src/", f"{ROOT}/frontend/src/"])
    seen = guard.wait_everywhere("frontend/src/App.tsx", "content", after_alert=before)
    guard.wait_finding("frontend/src/extra500.ts", "created", after_alert=before)
    about_rsync = [alert for alert in guard.alerts() if alert["id"] > before]
    assert [alert["id"] for alert in about_rsync] == [seen.alert["id"]], "one cause is one alert"
    assert seen.alert["id"] == about_rsync[0]["id"] and about_rsync[0]["findings_total"] >= 501


def test_git_checkout(guard):
    guard.machine.run(["git", "-c", "safe.directory=*", "checkout", "--quiet", "feature"], directory=ROOT)
    seen = guard.wait_everywhere("backend/app/views.py", "content")
    assert "content" in seen.change


def test_npm_install(guard):
    application.npm(guard.machine.on_disk(f"{ROOT}/frontend"), "install", "--prefer-offline", application.LATER_NODE_PACKAGE)
    guard.wait_everywhere("frontend/package.json", "content")
    guard.wait_finding("frontend/node_modules/is-number/package.json", "created")


def test_rm_rf(guard):
    guard.machine.run(f"rm -rf {ROOT}/backend/vendor/django/contrib/admin")
    guard.wait_finding("backend/vendor/django/contrib/admin/__init__.py", "deleted")
    guard.wait_everywhere("backend/vendor/django/contrib/admin", "deleted")


def test_changes_of_the_other_environment_are_its_own(guard):
    guard.machine.run(f"echo '10.0.0.1 evil' >> {HOST_ROOT}/etc/hosts; rm -r {HOST_ROOT}/share/doc/base-files")
    guard.wait_everywhere("etc/hosts", "content", environment=HOST_ENVIRONMENT)
    guard.wait_finding("share/doc/base-files", "deleted", environment=HOST_ENVIRONMENT)


def test_what_the_application_writes_is_no_alert(guard):
    guard.quiet()
    before = guard.last_alert()
    guard.machine.run(f"echo request >> {ROOT}/logs/app.log; echo upload > {ROOT}/media/upload.bin")
    guard.machine.run(f"echo last > {ROOT}/backend/app/last.py")
    seen = guard.wait_finding("backend/app/last.py", "created", after_alert=before)
    assert {finding["path"] for finding in seen.alert["findings"]} <= {"backend/app/last.py", "backend/app"}


def test_check_and_diff_agree_with_the_alerts(guard):
    check = guard.ctl("check", ENVIRONMENT, "--json", status=1).json()
    paths = {finding["path"] for finding in check["findings"]}
    assert not check["clean"] and {"backend/app/settings.py", "scripts/deploy.sh"} <= paths
    offline = guard.machine.run(["guardd", "check", "--offline", ENVIRONMENT, "--json"], status=1).json()
    assert paths <= {finding["path"] for finding in offline["findings"]}
    assert len(offline["findings"]) == check["findings_total"]


def test_the_ledger_holds(guard):
    verdict = guard.ctl("log", "verify", "--json").json()
    assert verdict["ok"] and verdict["records"] > 10


def test_an_exported_baseline_opens_with_coreutils(guard):
    guard.ctl("baseline", "export", HOST_ENVIRONMENT, "--to", "/tmp/export")
    verdict = guard.machine.run("sha256sum --check --quiet /tmp/export/SHA256SUMS", directory=HOST_ROOT, status=1)
    assert [line for line in verdict.lines() if not line.startswith("share/doc/base-files/")] == ["etc/hosts: FAILED"]


def resident_mib(pid: int) -> dict[str, float]:
    with open(f"/proc/{pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return {name: int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM", "RssAnon")}


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100

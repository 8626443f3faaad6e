"""Other programs that look whether a tree is what it was. Each has a database of its own below a directory of its own."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from measure import Failed, Sample, run, shell


class Peer:
    """One program. `why_not` says why it cannot be had here."""

    name = ""
    slow = False
    """One round of it is enough, and a million files are left out."""
    only_if_asked = ""
    """Why it is left out unless somebody names it."""

    def __init__(self, work: Path, root: Path):
        self.work, self.root = work / self.name.replace(" ", "-"), root
        self.work.mkdir(parents=True, exist_ok=True)

    @classmethod
    def why_not(cls) -> str | None:
        return None if shutil.which(cls.program()) else f"{cls.program()} is not installed"

    @classmethod
    def program(cls) -> str:
        return cls.name.split()[0]

    def baseline(self) -> Sample:
        raise NotImplementedError

    def check(self) -> Sample:
        raise NotImplementedError


AIDE = """database_in=file:{work}/db
database_out=file:{work}/db.new
gzip_dbout=no
num_workers=2
report_url=file:{work}/report
{root} p+ftype+i+l+n+u+g+s+m+c+acl+xattrs+e2fsattrs+sha256
"""
"""All that guardd compares."""


class Aide12(Peer):
    """Debian 12's, with two workers."""

    name = "aide 0.18"
    slow = True

    @classmethod
    def why_not(cls) -> str | None:
        missing = super().why_not()
        if missing:
            return missing
        version = subprocess.run(["aide", "--version"], capture_output=True, text=True, check=False)
        first = (version.stdout + version.stderr).split("\n", 1)[0]
        return None if " 0.18" in first else f"it is {first} here"

    def _run(self, what: str, good: tuple[int, ...]) -> Sample:
        config = self.work / "aide.conf"
        config.write_text(AIDE.format(work=self.work, root=self.root))
        return run([*self._enter(), "aide", f"--config={config}", what], good, self.work / "said")

    def _enter(self) -> list[str]:
        return []

    def baseline(self) -> Sample:
        (self.work / "db.new").unlink(missing_ok=True)
        sample = self._run("--init", (0,))
        (self.work / "db.new").rename(self.work / "db")
        return sample

    def check(self) -> Sample:
        return self._run("--check", (0,))


class Aide13(Aide12):
    """Debian 13's, in its own root file system, with two workers."""

    name = "aide 0.19"
    slow = False
    where: Path | None = None

    @classmethod
    def why_not(cls) -> str | None:
        return None if cls.where else "no root file system of Debian 13 with aide: see --debian-13"

    def _enter(self) -> list[str]:
        return ["chroot", str(self.where)]


class Integrit(Peer):
    """SHA-1: it has no other."""

    name = "integrit"

    def _run(self, what: str, good: tuple[int, ...]) -> Sample:
        config = self.work / "integrit.conf"
        config.write_text(f"root={self.root}\nknown={self.work}/known\ncurrent={self.work}/current\n")
        return run(["integrit", "-C", config, what], good, self.work / "said")

    def baseline(self) -> Sample:
        sample = self._run("-u", (0,))
        (self.work / "current").rename(self.work / "known")
        return sample

    def check(self) -> Sample:
        return self._run("-c", (0,))


PASSPHRASE = "bench-bench"
TRIPWIRE = """ROOT={work}
POLFILE={work}/tw.pol
DBFILE={work}/tw.twd
REPORTFILE={work}/report.twr
SITEKEYFILE={keys}/site.key
LOCALKEYFILE={keys}/local.key
EDITOR=/bin/true
LATEPROMPTING=false
LOOSEDIRECTORYCHECKING=false
MAILNOVIOLATIONS=false
EMAILREPORTLEVEL=3
REPORTLEVEL=3
SYSLOGREPORTING=false
MAILMETHOD=SMTP
SMTPHOST=localhost
SMTPPORT=25
"""


class Tripwire(Peer):
    """SHA-1 and a CRC, as its own policy has it."""

    name = "tripwire"

    def baseline(self) -> Sample:
        # They take it ten seconds: the same for all trees.
        keys = self.work.parents[1] / "tripwire-keys"
        keys.mkdir(exist_ok=True)
        for key in ("site", "local"):
            if not (keys / f"{key}.key").exists():
                self._admin("--generate-keys", f"--{key}-keyfile", keys / f"{key}.key", f"--{key}-passphrase", PASSPHRASE)
        signed = ("-c", self.work / "tw.cfg", "-S", keys / "site.key", "-Q", PASSPHRASE)
        (self.work / "tw.txt").write_text(TRIPWIRE.format(work=self.work, keys=keys))
        (self.work / "pol.txt").write_text(f"{self.root} -> +pinugsmcCS (recurse = true);\n")
        self._admin("--create-cfgfile", *signed, self.work / "tw.txt")
        self._admin("--create-polfile", *signed, self.work / "pol.txt")
        return run(["tripwire", "--init", "-c", self.work / "tw.cfg", "-P", PASSPHRASE], (0,), self.work / "said")

    def _admin(self, *arguments) -> None:
        run(["twadmin", *arguments], (0,), self.work / "said")

    def check(self) -> Sample:
        return run(["tripwire", "--check", "-c", self.work / "tw.cfg"], (0,), self.work / "said")


class Samhain(Peer):
    """SHA-256. Its paths are compiled in: it runs in a mount namespace that shows it its own."""

    name = "samhain"
    slow = True
    only_if_asked = "a check of a thousand files takes it most of a minute, for work that is not about files"

    def _run(self, test: str) -> Sample:
        for name in ("etc", "lib"):
            (self.work / name).mkdir(exist_ok=True)
        (self.work / "etc/samhainrc").write_text(
            f"[ReadOnly]\ndir = 99{self.root}\n[Log]\nMailSeverity=none\nPrintSeverity=none\nLogSeverity=none\nSyslogSeverity=none\n"
            "[Misc]\nDaemon=no\nSetLoopTime=60\nDigestAlgo=SHA256\n[ProcessCheck]\nProcessCheckActive=no\n[PortCheck]\nPortCheckActive=no\n[EOF]\n"
        )
        etc, lib = (shlex.quote(str(self.work / name)) for name in ("etc", "lib"))
        script = f"mount --bind {etc} /etc/samhain && mount --bind {lib} /var/lib/samhain && exec samhain -t {test} --foreground"
        return run(["unshare", "--mount", "sh", "-c", script], (0,), self.work / "said")

    def baseline(self) -> Sample:
        (self.work / "lib/samhain_file").unlink(missing_ok=True)
        sample = self._run("init")
        if not (self.work / "lib/samhain_file").exists():
            raise Failed("samhain wrote no database")
        return sample

    def check(self) -> Sample:
        return self._run("check")


class Sha256sum(Peer):
    """coreutils, two at once: content alone."""

    name = "sha256sum"

    def baseline(self) -> Sample:
        sums = shlex.quote(str(self.work / "sums"))
        root = shlex.quote(str(self.root))
        sample = shell(f"find {root} -type f -print0 | xargs -0 -n 500 -P 2 sha256sum > {sums}")
        run(["split", "-n", "l/2", self.work / "sums", self.work / "part."])
        return sample

    def check(self) -> Sample:
        parts = [shlex.quote(str(self.work / f"part.a{letter}")) for letter in "ab"]
        first, second = (f"sha256sum --check --quiet {part}" for part in parts)
        return shell(f"{first} & {second} && wait $!")


class Openssl(Peer):
    """`openssl sha256`, two at once, then sorted and compared: content alone."""

    name = "openssl"

    def _sums(self, to: Path) -> Sample:
        root, target = shlex.quote(str(self.root)), shlex.quote(str(to))
        return shell(f"find {root} -type f -print0 | xargs -0 -n 500 -P 2 openssl sha256 -r | LC_ALL=C sort > {target}")

    def baseline(self) -> Sample:
        return self._sums(self.work / "sums")

    def check(self) -> Sample:
        sample = self._sums(self.work / "now")
        if (self.work / "now").stat().st_size != (self.work / "sums").stat().st_size:
            raise Failed("openssl found another tree")
        return sample


PEERS: list[type[Peer]] = [Aide13, Aide12, Integrit, Tripwire, Samhain, Sha256sum, Openssl]
"""In the order of the tables."""

//! Answers of a daemon that guards a compose application.

use serde_json::{Value, json};

use crate::support::at;

const HOUR: i64 = 3600;

pub(crate) fn daemon() -> Value {
    json!({
        "version": "0.1.0", "pid": 812, "uid": 0, "started_at": at(-26 * HOUR - 60), "config": "/etc/guardd/guardd.toml",
        "degraded": [], "sinks": [{ "name": "journald", "healthy": true, "error": null, "behind": 0 }],
        "ledger": { "seq": 321, "hash": "ab".repeat(32) }
    })
}

pub(crate) fn locked() -> Value {
    json!({
        "name": "production", "root": "/srv/app", "state": "locked", "operation": null, "generation": 7,
        "since": at(-3 * HOUR - 60), "by": "anna (uid 1000)", "reason": "release 4.2", "window": null,
        "protected": { "files": 12_345, "directories": 1_203, "bytes": 1_300_000_000 },
        "seal": { "asked": "read-only", "done": "read-only", "unsealed": 0 },
        "watch": { "backend": "inotify", "directories": 1_203, "gaps": [], "skipped": [], "unmatched": [] },
        "last_rehash": { "finished_at": at(-150), "files": 12_345, "bytes": 1_300_000_000, "duration_ms": 4_170 },
        "rehash_seconds": 300, "next_rehash_at": at(150), "alerts_open": 0
    })
}

pub(crate) fn window() -> Value {
    json!({
        "id": 300, "by": "root (uid 0)", "maintainer": "anna", "reason": "fix the mail queue",
        "since": at(-310), "until": at(25 * 60 + 30)
    })
}

/// `base` with other fields.
pub(crate) fn with(mut base: Value, other: Value) -> Value {
    for (key, value) in other.as_object().into_iter().flatten() {
        base[key] = value.clone();
    }
    base
}

pub(crate) fn status(environments: &[Value]) -> Value {
    json!({ "daemon": daemon(), "environments": environments })
}

pub(crate) fn entry(size: u64, sha: &str) -> Value {
    json!({
        "type": "file", "mode": "0640", "uid": 0, "gid": 0, "size": size,
        "mtime": "2026-01-01T00:00:00.000000005Z", "ctime": "2026-01-01T00:00:00.000000006Z",
        "dev": (8u64 << 32) | 1, "ino": 77, "nlink": 1, "xattrs": { "user.a": "1", "user.b": "2" }, "sha256": sha.repeat(32)
    })
}

pub(crate) fn changed() -> Value {
    json!({
        "path": ".env.prod", "at": at(-200), "change": ["content", "size"],
        "before": entry(120, "ab"), "after": entry(12_500, "cd"),
        "actor": {
            "pid": 4711, "exe": "/usr/bin/vim.basic", "cmdline": "vim /srv/app/.env.prod", "uid": 0,
            "login_uid": 4_242_424, "started_at": at(-250), "parents": ["bash (4700)", "sshd (4650)"],
            "unit": "session-3.scope", "container": null, "confidence": "verified"
        },
        "restored": false
    })
}

pub(crate) fn created() -> Value {
    json!({
        "path": "backend/app/evil \\x0aname.py", "at": at(-190), "change": ["created"], "before": null,
        "after": entry(9, "ef"), "actor": null, "restored": false
    })
}

pub(crate) fn deleted() -> Value {
    json!({
        "path": "scripts", "at": at(-180), "change": ["deleted"],
        "before": with(entry(0, "00"), json!({ "type": "directory", "mode": "0755", "sha256": null })),
        "after": null, "actor": null, "restored": true, "note": "put back in 12 ms"
    })
}

/// Every other way to differ.
pub(crate) fn everything() -> Value {
    let after = with(
        entry(120, "ab"),
        json!({
            "type": "symlink", "mode": "4755", "uid": 4_242_424, "gid": 4_242_424, "ino": 78, "nlink": 2,
            "dev": (253u64 << 32) | 2, "flags": 16, "target": "/etc/passwd", "mtime": "2026-02-02T00:00:00.000000000Z",
            "xattrs": { "user.b": "3", "security.capability": "x" }, "sha256": null
        }),
    );
    json!({
        "path": "docker-compose.unified.yml", "at": at(-170),
        "change": ["type", "mode", "owner", "mtime", "inode", "links", "target", "xattr", "flags", "mount", "seal"],
        "before": entry(120, "ab"), "after": after, "actor": null, "restored": false
    })
}

pub(crate) fn alert(id: u64, status: &str) -> Value {
    json!({
        "id": id, "environment": "production", "severity": "critical", "status": status, "opened_at": at(-200),
        "title": ".env.prod changed (content, size)", "findings": [changed(), created(), deleted()],
        "findings_total": 3, "sessions": [
            { "user": "anna", "tty": "pts/0", "host": "10.0.0.5", "since": at(-2 * HOUR - 60) },
            { "user": "root", "tty": "tty1", "host": "", "since": null }
        ],
        "notes": [], "settled": ["scripts"], "reviewed": status != "open"
    })
}

pub(crate) fn record(seq: u64, event: &str, fields: Value) -> Value {
    let base = json!({ "seq": seq, "at": at(-100), "prev": "00".repeat(32), "environment": "production", "event": event });
    with(base, fields)
}

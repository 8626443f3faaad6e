//! Backups by the real daemon: when they are made, what they cost, what they prove.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use guard_api::Known;
use guard_api::method::{
    CreateBackup, DrillBackup, InitBackup, ListBackups, ListBackupsReply, PinBackup, PruneBackups, Step,
    VerifyBackup,
};
use guard_api::wire::{BackupProof, BackupProofState, BackupProofs, BackupResult};

use crate::stage::{ENV, PLAIN, SEALED, Stage, text_of, wish};
use crate::tree;

fn last<T>(step: Step<T>) -> T {
    step.result.unwrap()
}

#[track_caller]
fn create(stage: &Stage) -> BackupResult {
    last(stage.call(&CreateBackup::default()))
}

#[track_caller]
fn list(stage: &Stage) -> ListBackupsReply {
    stage.call(&ListBackups::default())
}

#[track_caller]
fn kinds(stage: &Stage) -> Vec<String> {
    list(stage).backups.into_iter().map(|b| b.kind.unwrap()).collect()
}

#[track_caller]
fn verify(stage: &Stage, id: Option<&str>) -> BackupProofs {
    last(stage.call(&VerifyBackup { id: id.map(str::to_owned), ..VerifyBackup::default() }))
}

#[track_caller]
fn drill(stage: &Stage) -> BackupProof {
    let mut proofs = last(stage.call(&DrillBackup::default()));
    proofs.backups.remove(0)
}

fn pack_files(stage: &Stage) -> Vec<std::path::PathBuf> {
    let packs = fs::read_dir(stage.state(format!("backups/{ENV}/packs"))).unwrap();
    packs.map(|e| e.unwrap().path()).collect()
}

#[test]
fn lock_unlock_and_accept_make_backups_first() {
    let mut stage = Stage::locked(PLAIN);
    assert_eq!(kinds(&stage), ["pre-lock"]);
    fs::write(stage.at("compose.yml"), "services: {web: {}}\n").unwrap();
    stage.finding("compose.yml");
    stage.accept(&["compose.yml"]);
    stage.call(&wish(None));
    assert_eq!(kinds(&stage), ["pre-lock", "pre-lock", "emergency"]);
    let all = list(&stage).backups;
    assert!(all.iter().all(|b| b.proof == BackupProofState::Verified && b.missing == 0), "{all:?}");
    // The ledger knows each, by its manifest's digest, before what it was made for.
    let records = stage.records();
    let events: Vec<&str> = records.iter().map(|r| r.event.as_str()).collect();
    let at = |event: &str| events.iter().position(|e| *e == event).unwrap();
    assert!(at("backup_created") < at("locked"));
    for record in stage.events("backup_created") {
        let id = record.fields["backup"].as_str().unwrap();
        let manifest = stage.state(format!("backups/{ENV}/{id}/manifest.json"));
        let digest = guard_store::file_digest(&manifest).unwrap();
        assert_eq!(record.fields["manifest"], digest.to_string());
    }
    stage.stop();
    stage.start();
    assert!(verify(&stage, None).ok);
}

#[test]
fn an_emergency_backup_holds_the_tree_as_it_stands() {
    let stage = Stage::locked(SEALED);
    let path = stage.at("backend/app/orders.py");
    tree::chmod(&path, 0o600);
    fs::write(&path, "def charge(): steal()\n").unwrap();
    fs::write(stage.at("backend/Dockerfile.new"), "new").ok();
    stage.finding("backend/app/orders.py");
    stage.call(&wish(None));
    let newest = list(&stage).backups.pop().unwrap();
    assert_eq!(newest.kind.as_deref(), Some("emergency"));
    let proof = drill(&stage);
    assert_eq!((proof.ok, proof.id.as_str()), (true, newest.id.as_str()), "{proof:?}");
    // Only what differs from what the first backup holds was written.
    let written = stage.events("backup_created").pop().unwrap().fields["written"].as_u64().unwrap();
    assert!(written > 0 && written < 1500, "{written}");
}

#[test]
fn a_second_backup_of_an_unchanged_tree_reads_and_writes_nothing() {
    let stage = Stage::new(PLAIN);
    let large: Vec<u8> = (0..1u32 << 20).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    tree::write(&stage.at("backend/large.bin"), &large);
    let mut stage = stage;
    stage.start();
    stage.lock();
    let packs = pack_files(&stage);
    let read_before = bytes_read(&stage);
    let second = create(&stage);
    let read = bytes_read(&stage) - read_before;
    assert_eq!((second.written, second.backup.missing), (0, 0));
    assert!(read < large.len() as u64 / 8, "{read} bytes were read for an unchanged tree");
    assert_eq!(pack_files(&stage), packs);
    assert_eq!(second.backup.proof, BackupProofState::Verified);
}

/// What the daemon's process asked the kernel for in read(2) and its kin.
fn bytes_read(stage: &Stage) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", stage.pid())).unwrap();
    let line = io.lines().find_map(|l| l.strip_prefix("rchar: ")).unwrap();
    line.parse().unwrap()
}

#[test]
fn a_drill_restores_everything_and_leaves_nothing() {
    let stage = Stage::new(PLAIN);
    fs::hard_link(stage.at("backend/Dockerfile"), stage.at("backend/Dockerfile.link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, stage.at("scripts/pipe"), 0o640.into()).unwrap();
    tree::write(&stage.at("empty/dir/deep/file"), "");
    tree::chmod(&stage.at("empty/dir"), 0o555);
    let mut stage = stage;
    stage.start();
    stage.lock();
    let proof = drill(&stage);
    assert!(proof.ok && proof.problems.is_empty() && proof.notes.is_empty(), "{proof:?}");
    let drills = fs::read_dir(stage.state("drill")).unwrap();
    assert_eq!(drills.count(), 0);
    let shown = stage.site().backups.unwrap();
    assert_eq!(shown.last_drill.unwrap().id, proof.id);
}

#[test]
fn what_a_killed_drill_left_is_removed_at_start() {
    let mut stage = Stage::locked(PLAIN);
    stage.kill();
    let left = stage.state("drill/site-000001/closed");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("secret"), "SECRET").unwrap();
    tree::chmod(&left, 0o500);
    stage.start();
    assert!(!stage.state("drill").exists() || fs::read_dir(stage.state("drill")).unwrap().count() == 0);
}

#[test]
fn a_damaged_backup_is_an_alert_and_an_exit_code() {
    let stage = Stage::locked(PLAIN);
    let pack = pack_files(&stage).remove(0);
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&pack, bytes).unwrap();
    for command in ["verify", "drill"] {
        let done = stage.guardctl(["backup", command]);
        assert_eq!(done.status.code(), Some(1), "{}", text_of(&done));
        assert!(text_of(&done).contains("DAMAGED"), "{}", text_of(&done));
    }
    assert!(stage.all_alerts().iter().any(|a| a.title.contains("is damaged")));
    // The next one holds everything again.
    assert!(create(&stage).written > 0);
    assert!(verify(&stage, None).ok && drill(&stage).ok);
}

#[test]
fn the_recovery_key_is_told_once() {
    let stage = Stage::locked(PLAIN);
    assert_eq!(list(&stage).recovery_key, None);
    assert!(create(&stage).warnings[0].contains("backup init"));
    let made = stage.call(&InitBackup::default());
    assert!(made.identity.contains("AGE-SECRET-KEY-1") && made.identity.contains(&made.recipient));
    assert!(matches!(stage.refused(&InitBackup::default()), Known::Refused { anyway: true, .. }));
    let secret = made.identity.lines().last().unwrap();
    let state = fs::read_dir(stage.state("keys")).unwrap().map(|e| fs::read(e.unwrap().path()).unwrap());
    let mut everywhere: Vec<Vec<u8>> = state.collect();
    everywhere.push(serde_json::to_vec(&stage.records()).unwrap());
    everywhere.push(stage.said().into_bytes());
    assert!(everywhere.iter().all(|b| !b.windows(secret.len()).any(|w| w == secret.as_bytes())));
    let next = create(&stage);
    assert!(next.written > 0 && next.backup.recovery && next.warnings.is_empty(), "{next:?}");
    assert_eq!(stage.site().backups.unwrap().recovery_key, Some(made.recipient));
    for key in ["backup-identity", "backup-recovery"] {
        assert_eq!(fs::metadata(stage.state("keys").join(key)).unwrap().mode() & 0o7777, 0o600);
    }
}

#[test]
fn a_recovery_key_that_somebody_exchanged_is_an_alert() {
    let mut stage = Stage::locked(PLAIN);
    stage.call(&InitBackup::default());
    let file = stage.state("keys/backup-recovery");
    let other = "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg\n";
    stage.stop();
    fs::write(&file, other).unwrap();
    stage.start();
    assert!(stage.own_alerts().iter().any(|a| a.title.contains("another recovery key")));
    stage.stop();
    fs::remove_file(&file).unwrap();
    stage.start();
    assert!(stage.own_alerts().iter().any(|a| a.title.contains("public half is gone")));
    fs::remove_file(stage.state("keys/backup-identity")).unwrap();
    let watched = || stage.own_alerts().into_iter().find(|a| a.title.contains("backup-identity"));
    crate::wait::until("an alert about the removed key", watched);
}

#[test]
fn old_ones_go_and_pinned_ones_stay() {
    let stage = Stage::locked(&format!("{PLAIN}[environments.{ENV}.backup]\nkeep = 3\n"));
    let first = list(&stage).backups.remove(0).id;
    stage.call(&PinBackup { environment: None, id: "1".into(), pinned: true });
    for _ in 0..4 {
        create(&stage);
    }
    let ids: Vec<String> = list(&stage).backups.into_iter().map(|b| b.id).collect();
    assert_eq!((ids.len(), &ids[0]), (4, &first));
    assert_eq!(stage.events("backup_pruned").len(), 1);
    let pruned = stage.call(&PruneBackups { environment: None, keep: Some(1) });
    assert_eq!((pruned.removed.len(), pruned.held_back), (2, None));
    let gone = stage.refused(&VerifyBackup { id: Some("3".into()), ..VerifyBackup::default() });
    assert!(matches!(gone, Known::UnknownBackup { .. }));
}

#[test]
fn a_backup_that_somebody_removed_is_an_alert() {
    let mut stage = Stage::locked(PLAIN);
    let id = create(&stage).backup.id;
    stage.stop();
    fs::remove_dir_all(stage.state(format!("backups/{ENV}/{id}"))).unwrap();
    stage.start();
    let title = format!("backups are gone that nobody removed by guardd: {id}");
    assert!(stage.all_alerts().iter().any(|a| a.title == title));
    stage.stop();
    stage.start();
    assert_eq!(stage.all_alerts().iter().filter(|a| a.title == title).count(), 1);
}

#[test]
fn a_backup_dir_elsewhere() {
    let dir = tempfile::Builder::new().prefix("gd.").tempdir().unwrap();
    let elsewhere = dir.path().join("app-backups");
    let section = format!("{SEALED}[environments.{ENV}.backup]\ndir = {elsewhere:?}\n");
    let mut stage = Stage::locked(&section);
    assert!(verify(&stage, None).ok);
    assert_eq!(fs::metadata(elsewhere.join(ENV)).unwrap().mode() & 0o7777, 0o700);
    // Others could put their own in its place: refused, and so is what begins with a backup.
    tree::chmod(&elsewhere, 0o777);
    stage.stop();
    stage.start();
    let Known::Refused { message, anyway: true, .. } = stage.refused(&wish(None)) else { panic!() };
    assert!(message.contains("others may change what is in it"), "{message}");
    let unlocked = stage.guardctl(["unlock", "--reason", "x", "--maintainer", "y", "--anyway"]);
    assert!(unlocked.status.success(), "{}", text_of(&unlocked));
    assert!(text_of(&unlocked).contains("no backup was made"), "{}", text_of(&unlocked));
}

#[test]
fn an_export_is_a_tar_of_the_encrypted_files() {
    let stage = Stage::locked(PLAIN);
    let file = stage.path("export.tar");
    let done = stage.guardctl(["backup", "export", "--to", file.to_str().unwrap()]);
    assert!(done.status.success(), "{}", text_of(&done));
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    let again = stage.guardctl(["backup", "export", "--to", file.to_str().unwrap()]);
    assert!(!again.status.success());
    let piped = stage.guardctl(["backup", "export"]).stdout;
    assert!(piped == fs::read(&file).unwrap());
    let listed = std::process::Command::new("tar").arg("-tf").arg(&file).output().unwrap();
    let names = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(names.lines().count(), 4, "{names}");
}

/// The shell lines of docs/backups.md, by name.
fn documented(name: &str) -> String {
    let page = include_str!("../../../../docs/backups.md");
    let from = page.split(&format!("<!-- test: {name} -->\n```sh\n")).nth(1);
    let block = from.and_then(|rest| rest.split("```").next());
    block.unwrap_or_else(|| panic!("docs/backups.md has no block {name}")).to_owned()
}

#[test]
fn the_documented_lines_open_a_backup_without_guardd() {
    let has = |tool: &str| std::process::Command::new(tool).arg("--version").output().is_ok();
    if let Some(missing) = ["age", "zstd", "jq", "ssh-keygen", "setfattr"].into_iter().find(|t| !has(t)) {
        eprintln!("skipped: there is no {missing}");
        return;
    }
    let stage = Stage::new(PLAIN);
    tree::write(&stage.at("backend/a\n\\b\tc "), "odd name");
    tree::write(&stage.at("backend/binary"), [0u8, 255, 10, 92].repeat(300_000));
    tree::write(&stage.at("backend/empty"), "");
    std::os::unix::fs::symlink("../with\\x \n", stage.at("backend/link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, stage.at("scripts/pipe"), 0o640.into()).unwrap();
    let mut stage = stage;
    stage.start();
    let recovery = stage.path("recovery.key");
    fs::write(&recovery, stage.call(&InitBackup::default()).identity).unwrap();
    stage.lock();
    stage.kill();
    for key in [recovery, stage.state("keys/backup-identity")] {
        let to = stage.path("restored");
        let setting = documented("setting")
            .replace(
                "/var/lib/guardd/backups/production",
                stage.state(format!("backups/{ENV}")).to_str().unwrap(),
            )
            .replace("/var/lib/guardd/keys/backup-identity", key.to_str().unwrap())
            .replace("/var/lib/guardd", stage.path("state").to_str().unwrap())
            .replace("/root/restored", to.to_str().unwrap());
        let names = ["verify", "decrypt", "make", "attributes", "xattrs", "finish"];
        let script = setting + &names.map(documented).concat();
        let done =
            crate::stage::run(std::process::Command::new("bash").args(["-euo", "pipefail", "-c", &script]));
        assert!(done.status.success(), "{}", text_of(&done));
        // What is under `writable` is in no backup.
        let restored = tree::picture(&to);
        let mut wanted = tree::picture(&stage.app());
        wanted.retain(|path, _| !path.starts_with(b"logs/") && !path.starts_with(b"media/"));
        assert_eq!(restored, wanted);
        let same = std::process::Command::new("diff")
            .args(["-r", "--no-dereference", "-x", "logs", "-x", "media", "-x", "pipe"])
            .args([stage.app(), to.clone()])
            .output()
            .unwrap();
        assert!(same.status.success(), "{}", text_of(&same));
        tree::open_up(&to);
        fs::remove_dir_all(&to).unwrap();
    }
}

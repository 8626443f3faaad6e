//! Truncated, bit-flipped, forged and replayed backups are refused, with the reason.

use std::path::{Path, PathBuf};

use guard_store::HostKey;
use guard_store::backup::{BackupError, BackupKeys, Backups, Refusal, Remembered, Which};

use super::stage::{MACHINE, NOW, Stage, back_up, contents, open};
use crate::support::{Fixture, flip};

fn refusal(backups: &Backups, id: &str) -> Refusal {
    match backups.open_backup(&Which::Id(id.parse().unwrap())) {
        Err(BackupError::Refused { why, .. }) => *why,
        other => panic!("not refused: {:?}", other.map(|b| b.id().clone())),
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn an_older_backup_under_a_newer_id_is_refused() {
    let s = Stage::new();
    let old = s.back_up(&[(b"a", b"1")]).manifest.id;
    let new = "000009-20261122T000000Z";
    copy(&s.backups.path().join(old.to_string()), &s.backups.path().join(new));
    assert_eq!(refusal(&s.backups, new), Refusal::OtherId { found: old.clone() });
    assert_eq!(contents(&s.backups, &Which::Newest).unwrap().len(), 1);
}

#[test]
fn a_backup_of_another_environment_or_machine_is_refused() {
    let s = Stage::new();
    let id = s.back_up(&[(b"a", b"1")]).manifest.id;
    let other = open(&s.f, &s.keys, "development", Remembered::default()).unwrap();
    copy(&s.backups.path().join(id.to_string()), &other.path().join(id.to_string()));
    assert_eq!(refusal(&other, &id.to_string()), Refusal::OtherEnvironment { found: "production".into() });
    let keys = std::sync::Arc::clone(&s.keys);
    let elsewhere = Backups::open(
        &s.f.state,
        None,
        "production",
        "another",
        keys,
        s.f.key.public(),
        Remembered::default(),
    )
    .unwrap();
    assert_eq!(refusal(&elsewhere, &id.to_string()), Refusal::OtherMachine { found: MACHINE.into() });
}

#[test]
fn a_backup_that_somebody_else_signed_is_refused() {
    let s = Stage::new();
    // Whoever knows the recipients can encrypt to them; what he cannot do is sign.
    let forger = Fixture::new();
    let forged = back_up(&s.backups, &forger, NOW, &[(b"a", b"evil")]).unwrap().manifest.id;
    assert_eq!(refusal(&s.backups, &forged.to_string()), Refusal::Signature);
}

#[test]
fn a_backup_that_the_ledger_remembers_otherwise_is_refused() {
    let s = Stage::new();
    let made = s.back_up(&[(b"a", b"1")]);
    let id = made.manifest.id;
    let good = s.remembering(Remembered { manifests: [(id.clone(), made.digest)].into(), last_number: 1 });
    assert!(good.open_backup(&Which::Newest).is_ok());
    let expected = crate::support::digest(b"another");
    let bad = s.remembering(Remembered { manifests: [(id.clone(), expected)].into(), last_number: 1 });
    assert_eq!(refusal(&bad, &id.to_string()), Refusal::NotAsInLedger { expected, found: made.digest });
}

#[test]
fn a_lost_identity_is_said() {
    let s = Stage::new();
    let made = s.back_up(&[(b"a", b"1")]);
    std::fs::remove_file(s.f.state.keys().join("backup-identity")).unwrap();
    *s.keys.write().unwrap() = BackupKeys::load_or_create(&s.f.state, NOW).unwrap();
    assert!(s.keys.read().unwrap().created());
    let again = s.again();
    let opened = again.open_backup(&Which::Newest).unwrap();
    assert!(matches!(opened.entries(), Err(BackupError::Decrypt { .. })));
    // The next one shares nothing with what nobody here can read.
    let next = back_up(&again, &s.f, NOW, &[(b"a", b"1")]).unwrap();
    assert_ne!(next.manifest.packs, made.manifest.packs);
    assert_eq!(contents(&again, &Which::Newest).unwrap().len(), 1);
}

/// Every file of the stage's one backup.
fn files(s: &Stage, id: &str) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    for dir in [id, "packs"] {
        let inside = std::fs::read_dir(s.backups.path().join(dir)).unwrap();
        all.extend(inside.map(|e| e.unwrap().path()).filter(|p| p.file_name().unwrap() != "proofs.json"));
    }
    all
}

#[test]
fn any_flipped_bit_and_any_cut_is_refused() {
    let s = Stage::new();
    let made = s.back_up(&[(b"a", b"some content\n"), (b"b", b"other\n")]);
    let id = made.manifest.id.to_string();
    for file in files(&s, &id) {
        let good = std::fs::read(&file).unwrap();
        // Every byte of the small files; the armour's line ends and case are no content.
        let is_armour = file.extension().is_some_and(|e| e == "sig");
        let step = if good.len() > 400 { 7 } else { 1 };
        for at in (0..good.len()).step_by(step) {
            flip(&file, at, u8::try_from(at % 8).unwrap());
            let read = contents(&s.again(), &Which::Id(made.manifest.id.clone()));
            assert!(read.is_err() || is_armour, "{} byte {at}", file.display());
            std::fs::write(&file, &good).unwrap();
        }
        for cut in (0..good.len()).step_by(step * 3) {
            std::fs::write(&file, &good[..cut]).unwrap();
            let read = contents(&s.again(), &Which::Id(made.manifest.id.clone()));
            // The armour's last newline and tar's last zeros are not needed to read a content.
            assert!(read.is_err() || is_armour || cut + 64 > good.len(), "{} cut at {cut}", file.display());
            std::fs::write(&file, &good).unwrap();
        }
    }
    assert_eq!(contents(&s.again(), &Which::Newest).unwrap().len(), 2);
}

#[test]
fn the_key_of_the_older_signers_file_is_put_right_silently() {
    let f = Fixture::new();
    let path = f.state.public().join("allowed_signers");
    let now = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, now.replace(",guardd-backup", "")).unwrap();
    let again = HostKey::load_or_create(&f.state).unwrap();
    assert_eq!(*again.origin(), guard_store::KeyOrigin::Loaded);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), now);
}

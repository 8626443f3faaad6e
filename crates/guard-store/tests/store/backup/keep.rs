//! What verifying proves, what stays, and what may go.

use std::sync::atomic::{AtomicBool, AtomicU64};

use guard_model::retention::{Asked, Proof};
use guard_model::{BackupId, Timestamp};
use guard_store::backup::{BackupError, Backups, HeldBack, Pin, Pruned, Pulse, Scope, Verified, Which};

use super::stage::{NOW, Stage, back_up, contents, noise};
use crate::support::{bash, digest, flip};

pub(crate) fn verify(backups: &Backups, id: &BackupId, scope: Scope) -> Verified {
    let (cancel, bytes) = (AtomicBool::new(false), AtomicU64::new(0));
    backups.verify(id, scope, Pulse { cancel: &cancel, bytes: &bytes }).unwrap()
}

fn prune(s: &Stage, keep: u32, asked: Asked) -> Result<Pruned, BackupError> {
    let mut told = None;
    let pruned = s.backups.prune(keep, asked, |going| {
        // Told before it goes.
        let there = s.backups.ids().unwrap();
        assert!(going.removed.iter().all(|id| there.contains(id)));
        told = Some(going.clone());
        Ok::<(), BackupError>(())
    })?;
    assert_eq!(told.unwrap_or_default().removed, pruned.removed);
    Ok(pruned)
}

fn pack(s: &Stage, at: usize, id: &BackupId) -> std::path::PathBuf {
    let backup = s.backups.open_backup(&Which::Id(id.clone())).unwrap();
    s.backups.path().join(format!("packs/{}.tar.zst.age", backup.manifest().packs[at].sha256))
}

#[test]
fn what_was_verified_is_not_read_again_until_it_is_touched() {
    let s = Stage::new();
    let first = s.back_up(&[(b"a", b"one"), (b"b", b"two")]).manifest.id;
    assert_eq!(s.backups.proof(&first).unwrap(), Proof::Unverified);
    let whole = Verified { files: 2, bytes: 6, packs: 1, missing: 0, problems: vec![] };
    assert_eq!(verify(&s.backups, &first, Scope::Unproven), whole);
    assert_eq!(s.again().proof(&first).unwrap(), Proof::Verified);
    let second = s.back_up(&[(b"a", b"one"), (b"b", b"three")]).manifest.id;
    let only_new = Verified { files: 2, bytes: 5, packs: 1, missing: 0, problems: vec![] };
    assert_eq!(verify(&s.again(), &second, Scope::Unproven), only_new);
    assert_eq!(verify(&s.backups, &second, Scope::Everything).packs, 2);
    let touched = pack(&s, 0, &first);
    let same = std::fs::read(&touched).unwrap();
    std::fs::write(&touched, same).unwrap();
    assert_eq!(s.backups.proof(&second).unwrap(), Proof::Unverified);
    assert_eq!(verify(&s.backups, &second, Scope::Unproven).packs, 1);
    assert_eq!(s.backups.proof(&second).unwrap(), Proof::Verified);
}

#[test]
fn a_damaged_pack_is_said_and_written_anew_by_the_next_backup() {
    let s = Stage::new();
    let large = noise(7, 5 << 20);
    let files: Vec<(&[u8], &[u8])> = vec![(b"a", b"one"), (b"large", &large)];
    let first = s.back_up(&files).manifest.id;
    let damaged = pack(&s, 1, &first);
    flip(&damaged, 3 << 20, 2);
    let found = verify(&s.backups, &first, Scope::Everything);
    assert_eq!((found.problems.len(), found.packs), (1, 1), "{:?}", found.problems);
    assert!(found.problems[0].contains(damaged.file_name().unwrap().to_str().unwrap()));
    assert_eq!(s.again().proof(&first).unwrap(), Proof::Damaged);
    let second = s.back_up(&files);
    assert!(second.written > 5 << 20, "{}", second.written);
    assert_eq!(verify(&s.backups, &second.manifest.id, Scope::Everything).problems, [""; 0]);
    // What the older one lost is there again by its digest.
    assert!(contents(&s.again(), &Which::Id(first)).unwrap()[1].1 == large);
}

#[test]
fn every_file_that_is_flipped_cut_or_gone_is_a_problem_with_a_reason() {
    let s = Stage::new();
    let id = s.back_up(&[(b"a", b"one"), (b"b", b"two")]).manifest.id;
    let dir = s.backups.path().join(id.to_string());
    let files = [
        dir.join("manifest.json"),
        dir.join("manifest.json.sig"),
        dir.join("entries.jsonl.zst.age"),
        pack(&s, 0, &id),
    ];
    for file in files {
        let good = std::fs::read(&file).unwrap();
        let middle = good.len() / 2;
        let mut flipped = good.clone();
        flipped[middle] ^= 1;
        let longer = [&good[..], b"x"].concat();
        for bad in [&flipped[..], &good[..middle], &good[..good.len() - 30], b"", &longer] {
            std::fs::write(&file, bad).unwrap();
            let found = verify(&s.again(), &id, Scope::Everything);
            let is_armour = file.ends_with("manifest.json.sig");
            assert!(found.problems.len() == 1 || is_armour && bad.len() > good.len(), "{}", file.display());
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(verify(&s.again(), &id, Scope::Everything).problems.len(), 1);
        std::fs::write(&file, &good).unwrap();
    }
    assert_eq!(verify(&s.again(), &id, Scope::Everything).problems, [""; 0]);
}

#[test]
fn verifying_can_be_stopped() {
    let s = Stage::new();
    let id = s.back_up(&[(b"a", b"one")]).manifest.id;
    let (cancel, bytes) = (AtomicBool::new(true), AtomicU64::new(0));
    let stopped = s.backups.verify(&id, Scope::Everything, Pulse { cancel: &cancel, bytes: &bytes });
    assert!(matches!(stopped, Err(BackupError::Cancelled)));
    assert_eq!(s.backups.proof(&id).unwrap(), Proof::Unverified);
}

#[test]
fn the_chain_from_backup_to_backup_is_checked() {
    let s = Stage::new();
    s.back_up(&[(b"a", b"1")]);
    let aside = s.f.temp.path().join("aside");
    let second = s.back_up(&[(b"a", b"2")]).manifest.id;
    let third = s.back_up(&[(b"a", b"3")]).manifest.id;
    // A second one that was made elsewhere by the same key, such as from a copy of the state directory.
    std::fs::rename(s.backups.path().join(second.to_string()), &aside).unwrap();
    let fork = s.again();
    std::fs::rename(s.backups.path().join(third.to_string()), aside.with_extension("third")).unwrap();
    let other = back_up(&fork, &s.f, NOW, &[(b"a", b"other")]).unwrap().manifest.id;
    assert_eq!(other, second);
    std::fs::rename(aside.with_extension("third"), s.backups.path().join(third.to_string())).unwrap();
    let found = verify(&s.again(), &third, Scope::Everything);
    assert!(found.problems[0].contains("it follows a manifest"), "{:?}", found.problems);
}

#[test]
fn the_last_ones_and_the_pinned_ones_stay_and_unneeded_packs_go() {
    let s = Stage::new();
    let made: Vec<BackupId> = (0..5u8)
        .map(|n| {
            let at = Timestamp(NOW.0 + i64::from(n) * 1_000_000);
            back_up(&s.backups, &s.f, at, &[(b"same", b"same"), (b"a", &[n])]).unwrap().manifest.id
        })
        .collect();
    assert!(s.backups.set_pinned(&made[0], Pin::Keep).unwrap());
    assert!(!s.backups.set_pinned(&made[0], Pin::Keep).unwrap());
    let held_back = prune(&s, 2, Asked::ByItself).unwrap();
    assert_eq!((held_back.removed, held_back.held_back), (vec![], Some(HeldBack::NewestNotVerified)));
    verify(&s.backups, &made[4], Scope::Unproven);
    let pruned = prune(&s, 2, Asked::ByItself).unwrap();
    assert_eq!((pruned.removed, pruned.packs), (made[1..3].to_vec(), 2));
    assert_eq!(s.backups.ids().unwrap(), [made[0].clone(), made[3].clone(), made[4].clone()]);
    assert!(matches!(s.backups.content(&digest(&[1]), &mut Vec::new()), Err(BackupError::NotHeld { .. })));
    for id in [&made[0], &made[3], &made[4]] {
        assert_eq!(verify(&s.again(), id, Scope::Everything).problems, [""; 0]);
    }
    assert!(s.backups.set_pinned(&made[0], Pin::Free).unwrap());
    assert_eq!(prune(&s, 2, Asked::ByItself).unwrap().removed, [made[0].clone()]);
}

#[test]
fn a_clock_that_went_backwards_deletes_nothing() {
    let s = Stage::new();
    for seconds in [0, 9_000_000, 1] {
        let at = Timestamp(NOW.0 + seconds * 1_000_000);
        let made = back_up(&s.backups, &s.f, at, &[(b"a", b"1")]).unwrap();
        verify(&s.backups, &made.manifest.id, Scope::Unproven);
    }
    let pruned = prune(&s, 1, Asked::ByItself).unwrap();
    assert_eq!((pruned.removed, pruned.held_back), (vec![], Some(HeldBack::ClockWentBack)));
    assert_eq!(prune(&s, 1, Asked::ByHand).unwrap().removed.len(), 2);
}

#[test]
fn no_pack_goes_while_a_manifest_cannot_be_believed() {
    let s = Stage::new();
    let [first, second, third] = [b"1", b"2", b"3"].map(|content| s.back_up(&[(b"a", content)]).manifest.id);
    verify(&s.backups, &second, Scope::Unproven);
    let manifest = s.backups.path().join(third.to_string()).join("manifest.json");
    let good = std::fs::read(&manifest).unwrap();
    flip(&manifest, 30, 1);
    // Whatever may go goes, but who knows which packs the damaged one needs.
    let pruned = prune(&s, 1, Asked::ByHand).unwrap();
    assert_eq!((pruned.removed, pruned.packs), (vec![first], 0));
    drop(s.again());
    std::fs::write(&manifest, good).unwrap();
    assert_eq!(contents(&s.again(), &Which::Id(third)).unwrap().len(), 1);
    assert_eq!(s.backups.path().join("packs").read_dir().unwrap().count(), 2);
}

#[test]
fn an_export_is_the_same_files_in_one() {
    let s = Stage::new();
    let id = s.back_up(&[(b"a", b"one"), (b"b", b"two")]).manifest.id;
    s.back_up(&[(b"a", b"another")]);
    let file = s.f.temp.path().join("export.tar");
    s.backups.export(&id, &mut std::fs::File::create(&file).unwrap()).unwrap();
    let line = format!(
        "mkdir out; tar -xf export.tar -C out; diff -r out/{id} '{0}/{id}'; ls out/packs | wc -l; \
         for p in out/packs/*; do cmp $p '{0}'/packs/${{p##*/}}; done",
        s.backups.path().display()
    );
    assert_eq!(bash(s.f.temp.path(), &line).unwrap().trim(), "1");
}

//! A disk that is really full: the reserve holds alerts, nothing is half
//! written, and writing goes on by itself once there is room.

use std::time::{Duration, Instant};

use guard_model::Severity;
use guard_model::ledger::Event;
use guard_store::ledger::Verified;
use guard_store::{
    BaselineWriter, HostKey, Ledger, LedgerHandle, StateDir, StoreError, lock_file, verify_files,
};

use crate::mount::Mount;
use crate::support::{clock, draft, finding, lock_content, opened_alert, record, stopped};

fn start(mount: &Mount) -> (StateDir, HostKey, Ledger) {
    let state = StateDir::open(&mount.path().join("state")).unwrap();
    let key = HostKey::load_or_create(&state).unwrap();
    let (ledger, _) = Ledger::open(&state, key.clone(), clock()).unwrap();
    (state, key, ledger)
}

/// Appends alerts until the disk takes no more; answers how many bytes went in.
fn exhaust(h: &LedgerHandle) -> u64 {
    let title = "t".repeat(200_000);
    let mut bytes = 0;
    loop {
        let alert = Event::AlertOpened {
            severity: Severity::High,
            title: title.clone(),
            findings: vec![finding("some/path")],
            sessions: vec![],
        };
        let before = h.health().reserve.bytes;
        match h.append(Some("production".into()), vec![alert]) {
            Ok(records) => bytes += serde_json::to_vec(&records[0]).unwrap().len() as u64 + 1,
            Err(e) => {
                assert!(matches!(e, StoreError::NotDurable { .. }) && e.is_out_of_space(), "{e:?}");
                assert!(h.health().write_error.is_some());
                return bytes;
            }
        }
        assert!(h.health().reserve.bytes <= before);
        assert!(bytes < 100 * 1024 * 1024, "the disk never fills");
    }
}

fn a_full_disk_takes_sixteen_mebibytes_of_alerts(mount: &Mount) {
    let (state, key, ledger) = start(mount);
    let h = ledger.handle();
    h.append(None, vec![stopped(0)]).unwrap();
    assert_eq!(h.health().reserve.error, None);
    mount.fill();
    // Others have no byte left, and yet:
    assert!(std::fs::write(mount.path().join("another"), vec![b'x'; 65536]).is_err());
    let head_before = h.head();
    let taken = exhaust(&h);
    assert!(taken >= 15 * 1024 * 1024, "only {taken} bytes");
    let head_full = h.head();
    assert!(head_full.seq > head_before.seq);
    // A record that is too large for what is left takes nothing with it: small ones still fit.
    h.append(None, vec![stopped(1)]).unwrap();
    assert!(h.health().write_error.is_none());
    let report = verify_files(&state.ledger(), &key.public(), Some(h.head())).unwrap();
    assert_eq!((report.verdict(), report.unfinished), (Verified::Whole, 0));
    // Other writers fail with a typed error and leave nothing half.
    let e = lock_file::write(&state, &lock_content("production", h.head()), &key).err();
    let mut writer = BaselineWriter::create(&state, "production", 1);
    if let Ok(mut w) = writer {
        for i in 0..1000u32 {
            w.push(&record(format!("f{i}").as_bytes(), b"x")).unwrap();
        }
        writer = w.finish(draft(), &key).map(|_| panic!("a baseline fits on a full disk"));
    }
    assert!(writer.is_err_and(|e| e.is_out_of_space()));
    println!("lock file on a full disk: {e:?}");
    // Restarted on the full disk, it goes on guarding.
    drop(ledger.stop());
    let (ledger, opened) = Ledger::open(&state, key.clone(), clock()).unwrap();
    assert!(opened.head.seq > head_full.seq);
    let h = ledger.handle();
    let known =
        h.index().alerts(Some("production"), guard_store::index::AlertScope::Open).unwrap().len() as u64;
    assert!(known >= head_full.seq - head_before.seq - 1, "{known}");
    mount.make_room();
    h.append(Some("production".into()), vec![opened_alert(&["after"])]).unwrap();
    let health = h.health();
    assert_eq!((health.write_error, health.reserve.error), (None, None));
    assert!(health.reserve.bytes >= 16 * 1024 * 1024);
    // The index goes back to the disk by itself.
    let since = Instant::now();
    while let Some(why) = h.health().index_error {
        assert!(since.elapsed() < Duration::from_secs(60), "{why}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let head = ledger.stop().unwrap();
    let report = verify_files(&state.ledger(), &key.public(), Some(head)).unwrap();
    assert_eq!(report.verdict(), Verified::Whole);
}

#[test]
fn on_tmpfs() {
    let Some(mount) = Mount::tmpfs("160m") else { return };
    a_full_disk_takes_sixteen_mebibytes_of_alerts(&mount);
}

#[test]
fn on_ext4() {
    let Some(mount) = Mount::ext4("192M") else { return };
    a_full_disk_takes_sixteen_mebibytes_of_alerts(&mount);
}

#[test]
fn a_disk_too_small_for_the_reserve_says_so_and_works() {
    let Some(mount) = Mount::tmpfs("6m") else { return };
    let (_state, _key, ledger) = start(&mount);
    let h = ledger.handle();
    h.append(None, vec![stopped(0)]).unwrap();
    let reserve = h.health().reserve;
    assert!(reserve.bytes < 16 * 1024 * 1024 && reserve.error.is_some(), "{reserve:?}");
    ledger.stop().unwrap();
}

#[test]
fn a_first_start_on_a_full_disk_is_a_clear_error() {
    let Some(mount) = Mount::tmpfs("1m") else { return };
    mount.fill();
    let state = StateDir::open(&mount.path().join("state"));
    match state.and_then(|s| HostKey::load_or_create(&s)) {
        Err(e) => assert!(e.is_out_of_space(), "{e:?}"),
        Ok(_) => panic!("a key on a full disk"),
    }
}

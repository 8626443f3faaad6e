//! What a crash leaves: recovered, or told as what it is.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use guard_model::ledger::Head;
use guard_store::ledger::{BreakCause, Verified};
use guard_store::{HostKey, Ledger, StateDir, StoreError, verify_files};

use crate::mount::Mount;
use crate::support::{Fixture, clock, opened_alert, stopped};

/// Where each line of a text ends, its newline included.
fn ends(text: &[u8]) -> Vec<usize> {
    text.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1).collect()
}

#[test]
fn cut_anywhere_in_the_last_lines_it_goes_on() {
    let f = Fixture::new();
    f.ledger_of(5);
    let path = &f.ledger_files()[0];
    let good = std::fs::read(path).unwrap();
    let ends = ends(&good);
    // Every byte of a record, some of the one before and of the long checkpoint behind.
    let before = (ends[2]..ends[3]).step_by(11);
    let checkpoint = (ends[4] + 1..=good.len()).step_by(97);
    let cuts = before.chain(ends[3]..=ends[4]).chain(checkpoint).chain([good.len() - 1, good.len()]);
    for cut in cuts {
        // An index as old as the third record, as a crash can leave it: here, none.
        f.remove_index();
        std::fs::write(path, &good[..cut]).unwrap();
        let whole = ends.iter().filter(|&&e| e <= cut).count();
        let (ledger, opened) = f.open().unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        assert_eq!(opened.head.seq, whole as u64, "cut at {cut}");
        let torn = cut - ends[whole - 1];
        assert_eq!(opened.torn_tail.as_ref().map_or(0, |t| t.bytes), torn as u64, "cut at {cut}");
        if let Some(tail) = opened.torn_tail {
            assert_eq!(std::fs::read(tail.saved_as).unwrap(), &good[ends[whole - 1]..cut]);
        }
        ledger.handle().append(None, vec![stopped(99)]).unwrap();
        let head = ledger.stop().unwrap();
        let report = verify_files(&f.state.ledger(), &f.key.public(), Some(head)).unwrap();
        assert_eq!((report.verdict(), report.unfinished), (Verified::Whole, 0), "cut at {cut}");
    }
}

#[test]
fn cut_in_the_very_first_line_it_begins_anew() {
    let f = Fixture::new();
    f.ledger_of(1);
    let path = &f.ledger_files()[0];
    let good = std::fs::read(path).unwrap();
    for cut in [0, 1, ends(&good)[0] - 1] {
        f.remove_index();
        std::fs::write(path, &good[..cut]).unwrap();
        let (ledger, opened) = f.open().unwrap();
        assert_eq!(opened.head, Head::default());
        assert_eq!(ledger.handle().append(None, vec![stopped(1)]).unwrap()[0].seq, 1);
        ledger.stop().unwrap();
    }
}

#[test]
fn blocks_of_zeros_that_a_power_loss_leaves_are_cut_off() {
    let f = Fixture::new();
    f.ledger_of(5);
    let path = &f.ledger_files()[0];
    let good = std::fs::read(path).unwrap();
    let ends = ends(&good);
    let (third, fourth) = (ends[2], ends[3]);
    let zeros = |from: usize, until: usize| {
        let mut bytes = good.clone();
        bytes[from..until].fill(0);
        bytes
    };
    let cases = [
        zeros(third, good.len()),
        zeros(third + 10, good.len()),
        zeros(third, fourth),
        zeros(third + 5, fourth + 5),
        [&good[..third], &[0; 5000]].concat(),
    ];
    for (i, bytes) in cases.iter().enumerate() {
        f.remove_index();
        std::fs::write(path, bytes).unwrap();
        let (ledger, opened) = f.open().unwrap_or_else(|e| panic!("case {i}: {e}"));
        assert_eq!(opened.head.seq, 3, "case {i}");
        assert_eq!(opened.torn_tail.unwrap().bytes, (bytes.len() - third) as u64);
        let head = ledger.stop().unwrap();
        let report = verify_files(&f.state.ledger(), &f.key.public(), Some(head)).unwrap();
        assert_eq!(report.verdict(), Verified::Whole, "case {i}");
    }
}

#[test]
fn what_was_confirmed_cannot_be_torn() {
    let f = Fixture::new();
    let head = f.ledger_of(5);
    let path = &f.ledger_files()[0];
    let good = std::fs::read(path).unwrap();
    for cut in [0, 1, good.len() / 2, good.len() - 1] {
        std::fs::write(path, &good[..cut]).unwrap();
        let Err(StoreError::LedgerBroken(b)) = f.open() else { panic!("cut at {cut}") };
        match &b.cause {
            BreakCause::Truncated { remembered, by, .. } => {
                assert_eq!((*remembered, by.as_str()), (head, "guardd.db"));
            }
            other => panic!("cut at {cut}: {other}"),
        }
        assert!(b.resume_after >= head.seq);
        let left = if cut == 0 { None } else { Some(good[..cut].to_vec()) };
        assert_eq!(std::fs::read(path).ok(), left, "evidence stays as it is");
    }
}

#[test]
fn a_zeroed_part_of_what_was_confirmed_is_no_crash() {
    let f = Fixture::new();
    f.ledger_of(5);
    let path = &f.ledger_files()[0];
    let mut bytes = std::fs::read(path).unwrap();
    let from = ends(&bytes)[2] + 5;
    bytes[from..].fill(0);
    std::fs::write(path, &bytes).unwrap();
    assert!(
        matches!(f.open(), Err(StoreError::LedgerBroken(b)) if matches!(b.cause, BreakCause::Truncated { .. }))
    );
}

/// Not a test of its own: the process that the next test kills.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os("GUARD_STORE_TEST_CHILD") else { return };
    let state = StateDir::open(path.as_ref()).unwrap();
    let key = HostKey::load_or_create(&state).unwrap();
    let (ledger, opened) = Ledger::open(&state, key, clock()).unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\nopened {}", opened.head.seq).unwrap();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                loop {
                    let events = vec![stopped(0), opened_alert(&["a", "b", "c"])];
                    let records = ledger.handle().append(Some("production".into()), events).unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "\nack {}", records[1].seq).unwrap();
                    out.flush().unwrap();
                }
            });
        }
    });
}

/// Starts the child and does `deed` once it has had records confirmed for a
/// while; answers the last number that it was told.
fn last_confirmed(path: &Path, patience: Duration, deed: impl FnOnce(&mut Child)) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["ledger_crash::child_that_writes_until_it_is_killed", "--exact", "--nocapture"])
        .env("GUARD_STORE_TEST_CHILD", path)
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut confirmed = 0;
    let until = Instant::now() + patience;
    let mut deed = Some(deed);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        // Only what was said before the deed counts: a kernel whose disk goes away
        // under it can still tell a process that fsync was done.
        if let (Some(seq), true) = (line.strip_prefix("ack "), deed.is_some()) {
            confirmed = confirmed.max(seq.parse::<u64>().unwrap());
        }
        if confirmed > 0
            && Instant::now() > until
            && let Some(deed) = deed.take()
        {
            deed(&mut child);
        }
    }
    child.wait().unwrap();
    confirmed
}

fn opens_whole(path: &Path, key: &HostKey, confirmed: u64) {
    let state = StateDir::open(path).unwrap();
    let (ledger, opened) = Ledger::open(&state, key.clone(), clock()).unwrap();
    assert!(opened.head.seq >= confirmed, "{} < {confirmed}", opened.head.seq);
    assert_eq!(opened.index.rebuilt, None);
    assert_eq!(ledger.handle().index().head().unwrap(), opened.head);
    let head = ledger.stop().unwrap();
    let report = verify_files(&state.ledger(), &key.public(), Some(head)).unwrap();
    assert_eq!(report.verdict(), Verified::Whole, "{:?}", report.first_broken());
}

#[test]
fn kill_nine_at_any_moment_loses_nothing_that_was_confirmed() {
    let Fixture { temp, state, key } = Fixture::new();
    let path = state.path().to_owned();
    drop(state);
    for round in 0..8u64 {
        let patience = Duration::from_millis(20 + 37 * round);
        let confirmed = last_confirmed(&path, patience, |child| child.kill().unwrap());
        opens_whole(&path, &key, confirmed);
    }
    drop(temp);
}

#[test]
fn a_power_cut_loses_nothing_that_was_confirmed() {
    let Some(mount) = Mount::ext4("64M") else { return };
    let path = mount.path().join("state");
    let key = HostKey::load_or_create(&StateDir::open(&path).unwrap()).unwrap();
    for round in 0..5u64 {
        let mut cut = false;
        let confirmed = last_confirmed(&path, Duration::from_millis(20 + 53 * round), |child| {
            cut = mount.cut_power();
            child.kill().unwrap();
        });
        if !cut {
            return;
        }
        mount.restore_power();
        opens_whole(&path, &key, confirmed);
    }
}

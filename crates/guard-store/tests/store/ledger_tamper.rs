//! Edits, removals, reordering and truncation are found and located.

use std::path::Path;

use guard_model::ledger::{Event, Head, Record, checkpoint_text, line_hash};
use guard_store::ledger::{BreakCause, LedgerBreak, Verified};
use guard_store::{Ledger, PublicKey, StoreError, VerifyReport, lock_file, verify_files};

use crate::support::{Fixture, clock, lock_content, locked, opened_alert, stopped};

fn verify(f: &Fixture, remembered: Option<Head>) -> VerifyReport {
    verify_files(&f.state.ledger(), &f.key.public(), remembered).unwrap()
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

fn write_lines(path: &Path, lines: &[String]) {
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

/// Chains lines anew, as an intruder without the host key can.
fn rechain(lines: &[String]) -> Vec<String> {
    let mut prev = Head::default().hash;
    let mut out = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let mut record: Record = serde_json::from_str(line).unwrap();
        record.seq = i as u64 + 1;
        record.prev = prev;
        let line = serde_json::to_string(&record).unwrap();
        prev = line_hash(line.as_bytes());
        out.push(line);
    }
    out
}

fn broken(outcome: Result<(Ledger, guard_store::Opened), StoreError>) -> LedgerBreak {
    match outcome {
        Err(StoreError::LedgerBroken(b)) => *b,
        Ok(_) => panic!("taken for whole"),
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn an_edit_of_any_byte_is_found_and_located() {
    let f = Fixture::new();
    let head = f.ledger_of(6);
    let path = &f.ledger_files()[0];
    let good = std::fs::read(path).unwrap();
    for at in 0..good.len() {
        for change in [good[at] ^ 1, b'\n', 0] {
            if change == good[at] {
                continue;
            }
            let mut bad = good.clone();
            bad[at] = change;
            std::fs::write(path, &bad).unwrap();
            let report = verify(&f, Some(head));
            assert_eq!(report.verdict(), Verified::Broken, "byte {at} to {change}");
            let line = good[..at].iter().filter(|b| **b == b'\n').count() as u64 + 1;
            let found = report.first_broken().unwrap();
            // The edited line, or the next one, which no longer fits it; an edit
            // of the last line is known by the head alone.
            let near = found.line == line || found.line == line + 1 || (line == 7 && found.line == 0);
            assert!(near, "byte {at} of line {line}: {found}");
        }
    }
}

#[test]
fn opening_finds_an_edit_of_any_byte_too() {
    let f = Fixture::new();
    f.ledger_of(3);
    let path = &f.ledger_files()[0];
    let good = std::fs::read(path).unwrap();
    for at in (0..good.len()).step_by(5) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(path, &bad).unwrap();
        let b = broken(f.open());
        assert!((4..=8).contains(&b.resume_after), "byte {at}: {b:?}");
        assert_eq!(std::fs::read(path).unwrap(), bad, "evidence was changed");
    }
}

#[test]
fn removed_swapped_doubled_and_inserted_lines_are_found() {
    let f = Fixture::new();
    let head = f.ledger_of(8);
    let path = &f.ledger_files()[0];
    let good = lines(path);
    for i in 0..good.len() - 1 {
        let mut removed = good.clone();
        removed.remove(i);
        let mut swapped = good.clone();
        swapped.swap(i, i + 1);
        let mut doubled = good.clone();
        doubled.insert(i, good[i].clone());
        let mut inserted = good.clone();
        inserted.insert(i, "{}".into());
        for (what, bad) in [removed, swapped, doubled, inserted].iter().enumerate() {
            write_lines(path, bad);
            let report = verify(&f, Some(head));
            assert_eq!(report.verdict(), Verified::Broken, "case {what} at {i}");
            let line = report.first_broken().unwrap().line;
            assert!((i as u64..=i as u64 + 2).contains(&line), "case {what} at {i}: {line}");
            broken(f.open());
        }
    }
}

#[test]
fn one_edit_is_one_break() {
    let f = Fixture::new();
    let head = f.ledger_of(8);
    let path = &f.ledger_files()[0];
    let mut text = lines(path);
    text[2] = text[2].replace("SIGTERM", "sigterm");
    text[5] = "no json".into();
    write_lines(path, &text);
    let report = verify(&f, Some(head));
    assert_eq!(report.breaks_total, 2);
    assert_eq!(report.breaks.iter().map(|b| b.line).collect::<Vec<_>>(), [4, 6]);
    assert_eq!((report.checkpoints_good, report.head), (1, head));
}

#[test]
fn a_missing_tail_is_found_by_any_remembered_head() {
    let f = Fixture::new();
    let head = f.ledger_of(8);
    let path = &f.ledger_files()[0];
    let good = lines(path);
    for keep in 1..good.len() {
        write_lines(path, &good[..keep]);
        assert_eq!(verify(&f, None).verdict(), Verified::Whole, "nothing tells it without a head");
        let report = verify(&f, Some(head));
        match &report.truncated().unwrap().cause {
            BreakCause::Truncated { remembered, found, .. } => {
                assert_eq!((*remembered, found.seq), (head, keep as u64));
            }
            other => panic!("{other}"),
        }
    }
    std::fs::remove_file(path).unwrap();
    assert!(verify(&f, Some(head)).truncated().is_some());
    assert!(matches!(broken(f.open()).cause, BreakCause::Truncated { .. }));
}

#[test]
fn a_signed_lock_file_remembers_the_head_when_the_index_is_gone() {
    let f = Fixture::new();
    let head = f.ledger_of(8);
    lock_file::write(&f.state, &lock_content("production", head), &f.key).unwrap();
    let path = &f.ledger_files()[0];
    let good = lines(path);
    f.remove_index();
    write_lines(path, &good[..5]);
    match broken(f.open()).cause {
        BreakCause::Truncated { by, .. } => assert_eq!(by, "the lock file of production"),
        other => panic!("{other}"),
    }
    // The last record rewritten, with nothing behind it that would not fit.
    let mut edited = good.clone();
    let last = edited.len() - 1;
    edited[last] = edited[last].replace("\"at\":\"2026", "\"at\":\"2025");
    write_lines(path, &edited);
    assert!(matches!(broken(f.open()).cause, BreakCause::Rewritten { .. }));
    // A lock file that nobody signed remembers nothing.
    write_lines(path, &good[..5]);
    std::fs::write(f.state.lock_file("production").unwrap(), "{}\n").unwrap();
    f.remove_index();
    f.open().unwrap();
}

#[test]
fn rechaining_an_edit_needs_the_host_key() {
    let f = Fixture::new();
    f.ledger_of(8);
    let path = &f.ledger_files()[0];
    let mut text = lines(path);
    text[3] = text[3].replace("SIGTERM 3", "nothing happened");
    write_lines(path, &rechain(&text));
    let report = verify(&f, None);
    match &report.first_broken().unwrap().cause {
        BreakCause::Checkpoint { seq, .. } => assert_eq!(*seq, 9),
        other => panic!("{other}"),
    }
    assert_eq!((report.checkpoints_good, report.signed_up_to), (0, 0));
    // Signed by a key of their own it is no better.
    let other = Fixture::new();
    let forged = rechain(&text);
    let prev = line_hash(forged[7].as_bytes());
    let signature = other.key.sign("guardd-ledger", checkpoint_text(9, &prev).as_bytes()).unwrap();
    let mut forged = forged;
    let mut last: Record = serde_json::from_str(&forged[8]).unwrap();
    last.event = Event::Checkpoint { signature };
    forged[8] = serde_json::to_string(&last).unwrap();
    write_lines(path, &forged);
    assert!(matches!(verify(&f, None).first_broken().unwrap().cause, BreakCause::Checkpoint { .. }));
    let theirs: PublicKey = other.key.public();
    assert_eq!(verify_files(&f.state.ledger(), &theirs, None).unwrap().verdict(), Verified::Whole);
}

#[test]
fn checkpoints_cannot_be_left_out() {
    let f = Fixture::new();
    let (ledger, _) = f.open().unwrap();
    ledger.handle().append(None, (0..2500).map(stopped).collect()).unwrap();
    ledger.stop().unwrap();
    let path = &f.ledger_files()[0];
    let text: Vec<String> = lines(path).into_iter().filter(|l| !l.contains("\"checkpoint\"")).collect();
    write_lines(path, &rechain(&text));
    let report = verify(&f, None);
    assert!(matches!(report.first_broken().unwrap().cause, BreakCause::NoCheckpoint { after: 0 }));
}

fn two_files(f: &Fixture) -> Head {
    let (ledger, _) = f.open().unwrap();
    ledger.handle().append(Some("production".into()), vec![locked(4)]).unwrap();
    for _ in 0..5 {
        let large = Event::DaemonStopped { reason: "x".repeat(15 * 1024 * 1024) };
        ledger.handle().append(None, vec![large]).unwrap();
    }
    let head = ledger.stop().unwrap();
    assert_eq!(f.ledger_files().len(), 2);
    head
}

#[test]
fn a_missing_file_is_found() {
    let f = Fixture::new();
    let head = two_files(&f);
    let files = f.ledger_files();
    let aside = f.temp.path().join("aside");
    std::fs::rename(&files[0], &aside).unwrap();
    let report = verify(&f, Some(head));
    assert!(matches!(report.first_broken().unwrap().cause, BreakCause::MissingFile { from: 1 }));
    let b = broken(f.open());
    assert!(matches!(b.cause, BreakCause::MissingFile { from: 1 }), "{b}");
    // What the index knows outlives the file: the environment stays locked.
    let (ledger, _) = Ledger::open_after_break(&f.state, f.key.clone(), clock(), &b).unwrap();
    let state = ledger.handle().index().environment_state("production").unwrap();
    assert_eq!(state.baseline.unwrap().generation, 4);
    ledger.handle().append(None, vec![stopped(1)]).unwrap();
    ledger.stop().unwrap();
    f.open().unwrap();
    std::fs::rename(&aside, &files[0]).unwrap();
    std::fs::rename(&files[1], &aside).unwrap();
    assert!(verify(&f, Some(head)).breaks_total >= 1);
}

#[test]
fn a_new_chain_starts_behind_a_break_and_everything_known_stays() {
    let f = Fixture::new();
    let (ledger, _) = f.open().unwrap();
    let h = ledger.handle();
    h.append(Some("production".into()), vec![locked(4)]).unwrap();
    h.append(Some("production".into()), vec![opened_alert(&["a", "b"])]).unwrap();
    h.append(None, vec![stopped(1)]).unwrap();
    let head = ledger.stop().unwrap();
    let path = f.ledger_files()[0].clone();
    let mut text = lines(&path);
    text[2] = text[2].replace("SIGTERM", "sigterm");
    write_lines(&path, &text);
    let evidence = std::fs::read(&path).unwrap();
    let b = broken(f.open());
    assert_eq!((b.line, b.resume_after), (4, head.seq));
    for index_survives in [true, false] {
        if !index_survives {
            f.remove_index();
        }
        let (ledger, opened) = match index_survives {
            true => Ledger::open_after_break(&f.state, f.key.clone(), clock(), &b).unwrap(),
            false => f.open().unwrap(),
        };
        assert_eq!(opened.index.rebuilt.is_none(), index_survives);
        let h = ledger.handle();
        let state = h.index().environment_state("production").unwrap();
        assert_eq!(state.baseline.unwrap().generation, 4);
        assert_eq!(h.index().alert(2).unwrap().unwrap().findings.len(), 2);
        let r = h.append(None, vec![stopped(7)]).unwrap();
        assert!(r[0].seq > head.seq);
        assert_eq!(h.read_from(1).filter_map(Result::ok).last().unwrap(), r[0]);
        ledger.stop().unwrap();
    }
    assert_eq!(std::fs::read(&path).unwrap(), evidence);
    let report = verify(&f, None);
    let causes: Vec<_> = report.breaks.iter().map(|b| &b.cause).collect();
    assert!(
        matches!(causes[..], [BreakCause::Chain(_), BreakCause::Restart { seq }] if *seq == head.seq + 1),
        "{causes:?}"
    );
}

#[test]
fn breaks_can_come_again() {
    let f = Fixture::new();
    f.ledger_of(3);
    for round in 0..3 {
        let path = f.ledger_files().pop().unwrap();
        let mut text = lines(&path);
        let last = text.len() - 2;
        text[last] = "{}".into();
        write_lines(&path, &text);
        let b = broken(f.open());
        let (ledger, _) = Ledger::open_after_break(&f.state, f.key.clone(), clock(), &b).unwrap();
        ledger.handle().append(None, vec![stopped(round), stopped(round)]).unwrap();
        ledger.stop().unwrap();
        // Opened twice without a word in between, nothing is broken anew.
        f.open().unwrap().0.stop().unwrap();
    }
    assert_eq!(f.ledger_files().len(), 4);
}

#[test]
fn a_new_chain_that_was_never_written_to_changes_nothing() {
    let f = Fixture::new();
    f.ledger_of(3);
    let path = f.ledger_files()[0].clone();
    let mut text = lines(&path);
    text[1] = "{}".into();
    write_lines(&path, &text);
    for _ in 0..3 {
        let b = broken(f.open());
        let (ledger, _) = Ledger::open_after_break(&f.state, f.key.clone(), clock(), &b).unwrap();
        // As after `kill -9`, before anything was appended.
        std::mem::forget(ledger);
    }
    let b = broken(f.open());
    assert_eq!(b.resume_after, 4);
}

#[test]
fn what_is_no_regular_file_is_a_break_not_an_obstacle() {
    let f = Fixture::new();
    let head = f.ledger_of(3);
    let path = f.ledger_files()[0].clone();
    let aside = f.temp.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    let links: [&dyn Fn(); 2] =
        [&|| std::fs::create_dir(&path).unwrap(), &|| std::os::unix::fs::symlink(&aside, &path).unwrap()];
    for make in links {
        make();
        let b = broken(f.open());
        assert_eq!(b.cause, BreakCause::NotAFile);
        assert!(verify(&f, Some(head)).breaks_total > 0);
        let (ledger, _) = Ledger::open_after_break(&f.state, f.key.clone(), clock(), &b).unwrap();
        let r = ledger.handle().append(None, vec![stopped(1)]).unwrap();
        assert!(r[0].seq > head.seq, "{}", r[0].seq);
        ledger.stop().unwrap();
        std::fs::remove_file(f.ledger_files().pop().unwrap()).unwrap();
        std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path)).unwrap();
    }
}

#[test]
fn strange_names_use_no_numbers_up() {
    let f = Fixture::new();
    let head = f.ledger_of(3);
    for name in
        ["9007199254740000.jsonl", "99999999999.jsonl", "1.jsonl", "+000000005.jsonl", "x.jsonl", "notes"]
    {
        std::fs::write(f.state.ledger().join(name), b"{}\n").unwrap();
    }
    let report = verify(&f, Some(head));
    assert_eq!((report.verdict(), report.strangers.len()), (Verified::Whole, 6));
    let (ledger, opened) = f.open().unwrap();
    assert_eq!(opened.head, head);
    assert_eq!(ledger.handle().append(None, vec![stopped(1)]).unwrap()[0].seq, head.seq + 1);
    ledger.stop().unwrap();
}

#[test]
fn a_file_changed_under_a_running_daemon_is_noticed_at_the_next_record() {
    type Deed = fn(&Path);
    let deeds: [(&str, Deed); 4] = [
        ("removed", |p| std::fs::remove_file(p).unwrap()),
        ("replaced", |p| {
            let copy = p.with_extension("copy");
            std::fs::copy(p, &copy).unwrap();
            std::fs::rename(&copy, p).unwrap();
        }),
        ("shortened", |p| std::fs::OpenOptions::new().write(true).open(p).unwrap().set_len(10).unwrap()),
        ("lengthened", |p| {
            use std::io::Write as _;
            std::fs::OpenOptions::new().append(true).open(p).unwrap().write_all(b"{}\n").unwrap();
        }),
    ];
    for (expected, deed) in deeds {
        let f = Fixture::new();
        let (ledger, _) = f.open().unwrap();
        let h = ledger.handle();
        h.append(Some("production".into()), vec![locked(4)]).unwrap();
        deed(&f.ledger_files()[0]);
        let r = h.append(None, vec![stopped(1)]).unwrap();
        assert_eq!(r[0].seq, 2);
        let [b] = &h.health().disturbed[..] else { panic!("{expected}: {:?}", h.health()) };
        assert!(matches!(b.cause, BreakCause::Disturbed { how, after: 1 } if how == expected), "{b}");
        assert_eq!(h.read_from(2).next().unwrap().unwrap(), r[0]);
        let head = ledger.stop().unwrap();
        assert_eq!(verify(&f, Some(head)).verdict(), Verified::Broken);
        // It was told once; the next start goes on.
        let (ledger, opened) = f.open().unwrap();
        assert_eq!(opened.head, head, "{expected}");
        assert_eq!(
            ledger.handle().index().environment_state("production").unwrap().baseline.unwrap().generation,
            4
        );
    }
}

#[test]
fn even_the_whole_directory_gone_is_survived() {
    let f = Fixture::new();
    let (ledger, _) = f.open().unwrap();
    let h = ledger.handle();
    h.append(None, vec![stopped(1)]).unwrap();
    std::fs::remove_dir_all(f.state.ledger()).unwrap();
    assert_eq!(h.append(None, vec![stopped(2)]).unwrap()[0].seq, 2);
    assert_eq!(h.health().disturbed.len(), 1);
    ledger.stop().unwrap();
}

#[test]
fn hostile_files_never_panic() {
    let f = Fixture::new();
    f.ledger_of(2);
    let path = f.ledger_files()[0].clone();
    let good = std::fs::read(&path).unwrap();
    let deep = b"[".repeat(200_000);
    let long = vec![b'x'; 17 * 1024 * 1024];
    let zeros = vec![0; 1000];
    let huge: &[u8] = br#"{"seq":18446744073709551615,"at":"2026-01-01T00:00:00Z","prev":"0000000000000000000000000000000000000000000000000000000000000000","event":"x"}"#;
    let hostile: [&[u8]; 9] = [b"", b"\n", b"\n\n\n", b"null\n", b"\xff\xfe\n", &deep, &long, &zeros, huge];
    for (i, tail) in hostile.iter().enumerate() {
        for newline in [&b""[..], b"\n"] {
            std::fs::write(&path, [good.as_slice(), tail, newline].concat()).unwrap();
            verify(&f, None);
            match f.open() {
                Ok((ledger, _)) => drop(ledger.stop().unwrap()),
                Err(StoreError::LedgerBroken(b)) => assert!(b.resume_after < 100, "{i}: {b:?}"),
                Err(e) => panic!("{i}: {e}"),
            }
        }
    }
}

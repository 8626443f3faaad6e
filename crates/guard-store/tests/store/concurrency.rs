//! Many callers at once.

use guard_store::ledger::Verified;
use guard_store::verify_files;

use crate::support::{Fixture, opened_alert, stopped};

#[test]
fn many_threads_share_writes_and_get_their_own_records() {
    let f = Fixture::new();
    let (ledger, _) = f.open().unwrap();
    let h = ledger.handle();
    let mut seqs: Vec<u64> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..8u64)
            .map(|t| {
                let h = h.clone();
                s.spawn(move || {
                    (0..50u64)
                        .flat_map(|i| {
                            let events = vec![stopped(t * 1000 + i), opened_alert(&["x"])];
                            let records = h.append(Some(format!("env{t}")), events).unwrap();
                            assert_eq!(records[0].event, stopped(t * 1000 + i));
                            assert_eq!(records[1].seq, records[0].seq + 1);
                            records.into_iter().map(|r| r.seq).collect::<Vec<_>>()
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=800).collect::<Vec<_>>());
    for t in 0..8 {
        assert_eq!(h.index().open_alerts(&format!("env{t}")).unwrap(), 50);
    }
    let head = ledger.stop().unwrap();
    let report = verify_files(&f.state.ledger(), &f.key.public(), Some(head)).unwrap();
    assert_eq!((report.verdict(), report.records), (Verified::Whole, 801));
}

#[test]
fn readers_follow_while_others_write() {
    let f = Fixture::new();
    let (ledger, _) = f.open().unwrap();
    let h = ledger.handle();
    std::thread::scope(|s| {
        for _ in 0..3 {
            let h = h.clone();
            s.spawn(move || {
                let wake = h.subscribe();
                let mut reader = h.read_from(1);
                let mut expected = 1;
                while expected <= 300 {
                    match reader.next() {
                        Some(record) => {
                            assert_eq!(record.unwrap().seq, expected);
                            expected += 1;
                        }
                        None => {
                            // Between look and wait nothing is lost: a wake stays until fetched.
                            if h.head().seq < expected {
                                wake.recv_timeout(std::time::Duration::from_secs(120)).unwrap();
                            }
                        }
                    }
                }
            });
        }
        for i in 0..300 {
            h.append(None, vec![stopped(i)]).unwrap();
        }
    });
    ledger.stop().unwrap();
}

//! The host key and lock files, with the real ssh-keygen on the other side.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use guard_model::ledger::Head;
use guard_store::{HostKey, KeyOrigin, LockFileError, PublicKey, StoreError, lock_file};

use crate::support::{Fixture, bash, lock_content, run};

#[test]
fn ssh_keygen_verifies_what_we_sign() {
    let f = Fixture::new();
    let armour = f.key.sign("guardd-baseline", b"some bytes\n").unwrap();
    std::fs::write(f.temp.path().join("sig"), armour).unwrap();
    let signers = f.state.public().join("allowed_signers");
    let verify = |namespace: &str, bytes: &[u8]| {
        run(
            Command::new("ssh-keygen")
                .args(["-Y", "verify", "-I", "guardd", "-n", namespace, "-f"])
                .arg(&signers)
                .arg("-s")
                .arg(f.temp.path().join("sig")),
            bytes,
        )
    };
    verify("guardd-baseline", b"some bytes\n").unwrap();
    verify("guardd-baseline", b"other bytes\n").unwrap_err();
    verify("guardd-lock", b"some bytes\n").unwrap_err();
}

#[test]
fn we_verify_what_ssh_keygen_signs_with_our_key() {
    let f = Fixture::new();
    let key = f.state.keys().join("host");
    let message = f.temp.path().join("message");
    std::fs::write(&message, b"signed by hand\n").unwrap();
    run(
        Command::new("ssh-keygen").args(["-Y", "sign", "-n", "guardd-lock", "-f"]).arg(&key).arg(&message),
        b"",
    )
    .unwrap();
    let armour = std::fs::read_to_string(f.temp.path().join("message.sig")).unwrap();
    let public = PublicKey::load(&f.state).unwrap();
    public.verify("guardd-lock", b"signed by hand\n", &armour).unwrap();
    assert!(public.verify("guardd-ledger", b"signed by hand\n", &armour).is_err());
    let listed =
        run(Command::new("ssh-keygen").arg("-lf").arg(f.state.public().join("host.pub")), b"").unwrap();
    assert!(listed.contains(&f.key.fingerprint()), "{listed}");
}

#[test]
fn a_foreign_key_verifies_nothing() {
    let (f, other) = (Fixture::new(), Fixture::new());
    let armour = other.key.sign("guardd-lock", b"x").unwrap();
    assert!(matches!(
        f.key.public().verify("guardd-lock", b"x", &armour),
        Err(StoreError::BadSignature { .. })
    ));
}

#[test]
fn the_key_stays_and_public_files_are_put_right() {
    let f = Fixture::new();
    assert_eq!(*f.key.origin(), KeyOrigin::Created);
    let again = HostKey::load_or_create(&f.state).unwrap();
    assert_eq!((again.origin(), again.fingerprint()), (&KeyOrigin::Loaded, f.key.fingerprint()));
    let signers = f.state.public().join("allowed_signers");
    std::fs::write(&signers, "guardd ssh-ed25519 AAAA intruder\n").unwrap();
    assert_eq!(again.public_drift(&f.state), ["allowed_signers"]);
    let repaired = HostKey::load_or_create(&f.state).unwrap();
    assert_eq!(*repaired.origin(), KeyOrigin::PublicRepaired { files: vec!["allowed_signers"] });
    assert!(repaired.public_drift(&f.state).is_empty());
    let mode = |p: &std::path::Path| p.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&signers), 0o644);
    assert_eq!(mode(&f.state.keys().join("host")), 0o600);
}

#[test]
fn a_lost_private_key_is_told() {
    let f = Fixture::new();
    std::fs::remove_file(f.state.keys().join("host")).unwrap();
    let new = HostKey::load_or_create(&f.state).unwrap();
    assert_eq!(*new.origin(), KeyOrigin::Replaced { lost: f.key.fingerprint() });
    assert_ne!(new.fingerprint(), f.key.fingerprint());
    // With the public half gone too, the ledger still says that there was one.
    f.ledger_of(1);
    std::fs::remove_file(f.state.keys().join("host")).unwrap();
    std::fs::remove_file(f.state.public().join("host.pub")).unwrap();
    let new = HostKey::load_or_create(&f.state).unwrap();
    assert!(matches!(new.origin(), KeyOrigin::Replaced { .. }));
}

#[test]
fn a_damaged_private_key_is_refused_and_left_alone() {
    let f = Fixture::new();
    let path = f.state.keys().join("host");
    let good = std::fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(3) {
        let mut bad = good.clone();
        bad[at] ^= 4;
        std::fs::write(&path, &bad).unwrap();
        match HostKey::load_or_create(&f.state) {
            // A flipped bit in comment or padding changes no key.
            Ok(key) => assert_eq!(key.fingerprint(), f.key.fingerprint(), "byte {at}"),
            Err(StoreError::Key { .. } | StoreError::Damaged { .. }) => {}
            Err(e) => panic!("byte {at}: {e}"),
        }
        assert_eq!(std::fs::read(&path).unwrap(), bad, "byte {at}: rewritten");
    }
}

#[test]
fn a_lock_file_is_verified_by_the_documented_line() {
    let f = Fixture::new();
    let content = lock_content("production", Head::default());
    let seen = lock_file::write(&f.state, &content, &f.key).unwrap();
    let path = f.state.lock_file("production").unwrap();
    let (read, seen_again) = lock_file::read_verified(&path, &f.key.public()).unwrap();
    assert_eq!((read, seen_again), (content, seen));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o644);
    let line = "head -n1 locks/production.lock | ssh-keygen -Y verify -f public/allowed_signers \
                -I guardd -n guardd-lock -s <(tail -n +2 locks/production.lock)";
    bash(f.state.path(), line).unwrap();
    bash(f.state.path(), "sed -i '1s/locked/unlocked/' locks/production.lock").unwrap();
    bash(f.state.path(), line).unwrap_err();
}

#[test]
fn every_edit_of_a_lock_file_is_found() {
    let f = Fixture::new();
    let content = lock_content("production", Head::default());
    lock_file::write(&f.state, &content, &f.key).unwrap();
    let path = f.state.lock_file("production").unwrap();
    let good = std::fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        if let Ok((read, _)) = lock_file::read_verified(&path, &f.key.public()) {
            // Whitespace around the armour says nothing; the content is as signed.
            assert_eq!(read, content, "byte {at}");
        }
        std::fs::write(&path, &good[..at]).unwrap();
        let cut = lock_file::read_verified(&path, &f.key.public());
        assert!(cut.is_err() || at + 1 >= good.len(), "cut at {at}");
    }
}

#[test]
fn lock_files_that_are_none() {
    let f = Fixture::new();
    let path = f.state.lock_file("production").unwrap();
    let read = || lock_file::read_verified(&path, &f.key.public()).unwrap_err();
    assert!(matches!(read(), LockFileError::Missing(_)));
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(read(), LockFileError::Unreadable(_)));
    std::fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert!(matches!(read(), LockFileError::Unreadable(_)));
    std::fs::remove_file(&path).unwrap();
    bash(f.state.path(), "mkfifo locks/production.lock").unwrap();
    assert!(matches!(read(), LockFileError::Unreadable(_)));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, vec![b'x'; 100_000]).unwrap();
    assert!(matches!(read(), LockFileError::Unreadable(_)));
    std::fs::write(&path, b"\xff\xfe\n").unwrap();
    assert!(matches!(read(), LockFileError::Malformed { .. }));
    lock_file::write(&f.state, &lock_content("staging", Head::default()), &f.key).unwrap();
    std::fs::copy(f.state.lock_file("staging").unwrap(), &path).unwrap();
    assert!(matches!(read(), LockFileError::OtherEnvironment { .. }));
}

#[test]
fn replacing_a_lock_file_is_seen_by_its_identity() {
    let f = Fixture::new();
    let content = lock_content("production", Head::default());
    let ours = lock_file::write(&f.state, &content, &f.key).unwrap();
    let path = f.state.lock_file("production").unwrap();
    assert_eq!(lock_file::seen(&path).unwrap(), ours);
    let copy = f.temp.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    std::fs::rename(&copy, &path).unwrap();
    assert_ne!(lock_file::seen(&path).unwrap(), ours);
}

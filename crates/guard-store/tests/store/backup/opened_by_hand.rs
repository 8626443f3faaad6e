//! Backups are open formats: age, zstd and tar read them.

use std::process::Command;

use super::stage::{NOW, Stage};
use crate::support::{bash, digest};

fn has(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|o| o.status.success())
}

#[test]
fn age_zstd_and_tar_open_them_with_either_key() {
    if !(has("age") && has("zstd")) {
        println!("skipped: age and zstd are not installed");
        return;
    }
    let s = Stage::new();
    let recovery = s.keys.write().unwrap().make_recovery_key(&s.f.state, NOW).unwrap();
    let made = s.back_up(&[(b".env", b"SECRET=1\n"), (b"empty", b"")]);
    let offline = s.f.temp.path().join("offline-key");
    std::fs::write(&offline, recovery.identity_file()).unwrap();
    let host = s.f.state.keys().join("backup-identity");
    for key in [&host, &offline] {
        let open = |file: &str, with: &str| {
            let line = format!("age -d -i '{}' '{file}' | zstd -dc | {with}", key.display());
            bash(s.backups.path(), &line).unwrap()
        };
        let entries = open(&format!("{}/entries.jsonl.zst.age", made.manifest.id), "cat");
        assert_eq!(entries.lines().count(), 2);
        assert!(entries.contains("\"path\":\".env\""));
        let pack = format!("packs/{}.tar.zst.age", made.manifest.packs[0].sha256);
        assert_eq!(open(&pack, &format!("tar -xO {}", digest(b"SECRET=1\n"))), "SECRET=1\n");
        assert_eq!(open(&pack, "tar -t | wc -l").trim(), "2");
        assert_eq!(
            bash(s.backups.path(), &format!("sha256sum < {pack} | cut -c1-64")).unwrap().trim(),
            made.manifest.packs[0].sha256.to_string()
        );
    }
    let verify = format!(
        "ssh-keygen -Y verify -f '{}' -I guardd -n guardd-backup -s manifest.json.sig < manifest.json",
        s.f.state.public().join("allowed_signers").display()
    );
    bash(&s.backups.path().join(made.manifest.id.to_string()), &verify).unwrap();
}

#[test]
fn nothing_secret_stands_in_the_clear() {
    let s = Stage::new();
    let made = s.back_up(&[(b"very-secret-name", b"very-secret-content")]);
    let dir = s.backups.path();
    let id = dir.join(made.manifest.id.to_string());
    let mut files: Vec<_> = std::fs::read_dir(&id).unwrap().map(|e| e.unwrap().path()).collect();
    files.extend(std::fs::read_dir(dir.join("packs")).unwrap().map(|e| e.unwrap().path()));
    assert_eq!(files.len(), 4);
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        for secret in ["very-secret", &digest(b"very-secret-content").to_string()] {
            let there = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!there, "{secret} in {}", file.display());
        }
    }
}

//! The git repository at a root: what goes past its hooks.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::stage::Stage;

const SECTION: &str = r#"
seal = "none"
rehash = "1h"
protect = ["backend/"]
"#;

pub(crate) fn git(root: &Path, arguments: &[&str]) -> String {
    let out = Command::new("git")
        .args(["-c", "user.name=Eve", "-c", "user.email=eve@example.org", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .current_dir(root)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(out.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn note(stage: &Stage, path: &str) -> String {
    stage.finding(path).note.unwrap_or_default()
}

#[test]
fn a_branch_moved_past_the_hooks_is_told_with_its_commits() {
    let mut stage = Stage::new(SECTION);
    let root = stage.app();
    git(&root, &["init", "-q"]);
    git(&root, &["commit", "-q", "--allow-empty", "-m", "first"]);
    git(&root, &["branch", "release"]);
    let first = git(&root, &["rev-parse", "HEAD"]);
    stage.start();
    stage.lock();

    git(&root, &["-c", "core.hooksPath=/dev/null", "commit", "-q", "--allow-empty", "-m", "past the hooks"]);
    let second = git(&root, &["rev-parse", "HEAD"]);
    let told = note(&stage, ".git/refs/heads/main");
    assert!(told.starts_with(&format!("branch main moved from {first} to {second}; ")), "{told}");
    assert!(told.ends_with("git's log says by Eve <eve@example.org>: commit: past the hooks"), "{told}");

    fs::write(root.join(".git/refs/heads/release"), format!("{second}\n")).unwrap();
    let told = note(&stage, ".git/refs/heads/release");
    let by_hand = format!("branch release moved from {first} to {second}; git's log does not say how");
    assert_eq!(told, by_hand);

    git(&root, &["symbolic-ref", "HEAD", "refs/heads/release"]);
    assert_eq!(note(&stage, ".git/HEAD"), "HEAD went from branch main to branch release");

    git(&root, &["config", "core.hooksPath", "/dev/null"]);
    assert!(note(&stage, ".git/config").contains("where it looks for hooks"));
    fs::write(root.join(".git/hooks/pre-commit"), "#!/bin/sh\n").unwrap();
    assert_eq!(note(&stage, ".git/hooks/pre-commit"), "git runs another pre-commit here, or none");

    // What git rewrites without moving anything is no business of the guard.
    fs::write(root.join(".git/FETCH_HEAD"), "x\n").unwrap();
    assert!(stage.found_paths().iter().all(|p| p != ".git/FETCH_HEAD" && p != ".git/index"));
}

#[test]
fn a_branch_that_is_only_packed() {
    let mut stage = Stage::new(SECTION);
    let root = stage.app();
    git(&root, &["init", "-q"]);
    git(&root, &["commit", "-q", "--allow-empty", "-m", "first"]);
    git(&root, &["commit", "-q", "--allow-empty", "-m", "second"]);
    git(&root, &["pack-refs", "--all"]);
    let (first, second) = (git(&root, &["rev-parse", "HEAD~1"]), git(&root, &["rev-parse", "HEAD"]));
    stage.start();
    stage.lock();
    let packed = root.join(".git/packed-refs");
    let text = fs::read_to_string(&packed).unwrap().replace(&second, &first);
    // In one step: in between it would be reported as deleted.
    fs::write(stage.path("packed"), text).unwrap();
    fs::rename(stage.path("packed"), &packed).unwrap();
    let told = note(&stage, ".git/packed-refs");
    assert_eq!(told, format!("branch main moved from {second} (its log's last) to {first}"));
}

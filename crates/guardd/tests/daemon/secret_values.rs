//! Values of sensitive files on their way into a repository.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use guard_api::Known;
use guard_api::method::FindValues;

use crate::stage::{ENV, GUARDD, Stage, text_of};
use crate::wait;

const SECTION: &str = r#"
seal = "none"
rehash = "1h"
branches = ["main"]
sensitive = [".env*", "secrets/"]
"#;

const KEY: &str = "f9Lw-Xq27_RtYb40sVnC8";
const PASSWORD: &str = "tr0ub4dor&3x";

/// A locked environment with secrets, and a repository elsewhere on a branch that is not held.
fn stage() -> (Stage, PathBuf) {
    let mut stage = Stage::new(SECTION);
    let env = format!(
        "DEBUG=true\nSECRET_KEY='{KEY}'\nDATABASE_URL=postgres://app:{PASSWORD}@db/app\nADMIN_PASSWORD=hunter2\n"
    );
    fs::write(stage.at(".env.prod"), env).unwrap();
    fs::create_dir(stage.at("secrets")).unwrap();
    fs::write(stage.at("secrets/api_token"), "b6J2mW8xTq5vZr1p\n").unwrap();
    stage.start();
    stage.lock();
    let work = stage.path("work");
    fs::create_dir(&work).unwrap();
    for command in [&["init", "-q", "-b", "feature"][..], &["commit", "-q", "--allow-empty", "-m", "first"]] {
        assert!(git(&stage, &work, command).status.success());
    }
    let mut install = Command::new(GUARDD);
    install.args(["git", "install", "--environment", ENV, "--state-dir"]).arg(stage.path("state")).arg(&work);
    let installed = install.output().unwrap();
    assert!(installed.status.success(), "{}", text_of(&installed));
    (stage, work)
}

fn git(stage: &Stage, work: &Path, arguments: &[&str]) -> Output {
    Command::new("git")
        .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.org"])
        .args(arguments)
        .current_dir(work)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GUARDD_SOCKET", stage.socket())
        .output()
        .unwrap()
}

fn commit(stage: &Stage, work: &Path, name: &str, content: &str) -> Output {
    fs::write(work.join(name), content).unwrap();
    assert!(git(stage, work, &["add", "."]).status.success());
    git(stage, work, &["commit", "-q", "-m", "x"])
}

/// Every byte that the daemon has written anywhere but into the tree and its backups.
fn told(stage: &Stage) -> String {
    let mut all = stage.said();
    for dir in [stage.path("log"), stage.state("ledger"), stage.state("baseline"), stage.path("run")] {
        let found =
            Command::new("find").arg(dir).args(["-type", "f", "-exec", "cat", "{}", "+"]).output().unwrap();
        all.push_str(&String::from_utf8_lossy(&found.stdout));
    }
    all + &String::from_utf8_lossy(&fs::read(stage.state("guardd.db")).unwrap_or_default())
}

#[test]
fn they_do_not_get_in() {
    let (stage, work) = stage();
    let text = format!(
        "import os\n\nKEY = \"{KEY}\"\nDB = 'postgres://app:{PASSWORD}@localhost/app'\nT = 'b6J2mW8xTq5vZr1p'\n"
    );
    let refused = commit(&stage, &work, "settings.py", &text);
    let said = text_of(&refused);
    assert!(!refused.status.success(), "{said}");
    for line in [
        "settings.py:3:8: error: the value of SECRET_KEY in .env.prod, which the environment keeps secret [",
        "settings.py:4:22: error: the value of DATABASE_URL (password) in .env.prod",
        "settings.py:5:6: error: the value that is in secrets/api_token",
        "unchecked: values of sensitive files, as 1 of them too short or too ordinary",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    // The call of `lock` is one, too.
    let recorded = stage.events("call").pop().unwrap();
    let told_of = recorded.fields["error"].as_str().unwrap();
    assert_eq!(told_of, "found: .env.prod DATABASE_URL (password), .env.prod SECRET_KEY, secrets/api_token");
    for secret in [KEY, PASSWORD, "b6J2mW8xTq5vZr1p"] {
        assert!(!said.contains(secret), "{said}");
        assert!(!told(&stage).contains(secret), "{secret} was written somewhere");
    }
    let passed = commit(&stage, &work, "settings.py", "import os\nKEY = os.environ['SECRET_KEY']\n");
    assert!(passed.status.success(), "{}", text_of(&passed));
}

#[test]
fn what_was_there_before_is_not_asked_about_again() {
    let (stage, work) = stage();
    let line = format!("KEY = \"{KEY}\"\n");
    fs::write(work.join("a.py"), &line).unwrap();
    assert!(git(&stage, &work, &["add", "."]).status.success());
    assert!(git(&stage, &work, &["commit", "-q", "--no-verify", "-m", "x"]).status.success());
    assert!(commit(&stage, &work, "a.py", &format!("x = 1\n{line}")).status.success());
    let finds = |r: &&guard_api::wire::Record| r.fields["method"] == "org.guardd.Control.FindValues";
    assert_eq!(stage.events("call").iter().filter(finds).count(), 0, "nothing was found");
}

#[test]
fn one_that_is_known_and_meant_is_allowed_by_the_name_of_its_key() {
    let (stage, work) = stage();
    let said = text_of(&commit(&stage, &work, "a.py", &format!("KEY = '{KEY}'\n")));
    let fingerprint = said.split("keeps secret [").nth(1).unwrap().split(']').next().unwrap().to_owned();
    let allow = format!(
        "[[allow]]\nrule = \"sensitive-value\"\npath = \"*.py\"\nfingerprint = \"{fingerprint}\"\nreason = \"of the tests\"\nuntil = 2099-01-01\n"
    );
    let passed = commit(&stage, &work, ".guardd-allow.toml", &allow);
    assert!(passed.status.success(), "{}", text_of(&passed));
    // A fingerprint made from the value could be used to try values out.
    assert!(!commit(&stage, &work, "b.py", &format!("DB = 'x://app:{PASSWORD}@db'\n")).status.success());
}

#[test]
fn without_the_daemon_they_are_listed_as_unchecked() {
    let (mut stage, work) = stage();
    stage.stop();
    let passed = commit(&stage, &work, "a.py", &format!("KEY = '{KEY}'\n"));
    let said = text_of(&passed);
    assert!(passed.status.success(), "{said}");
    assert!(said.contains("unchecked: values of sensitive files, as guardd does not run here"), "{said}");
    // A socket that nobody answers at holds a commit up no longer than a moment.
    let silent = stage.path("silent.sock");
    let _listening = std::os::unix::net::UnixListener::bind(&silent).unwrap();
    assert!(UnixStream::connect(&silent).is_ok());
    fs::write(work.join("b.py"), "long enough to be asked about\n").unwrap();
    let staged = Command::new("git").args(["add", "."]).current_dir(&work).status().unwrap();
    assert!(staged.success());
    let begin = std::time::Instant::now();
    let validated = Command::new(GUARDD)
        .args(["git", "validate", "--json"])
        .current_dir(&work)
        .env("GUARDD_SOCKET", &silent)
        .output()
        .unwrap();
    assert!(begin.elapsed() < wait::PATIENCE);
    assert!(text_of(&validated).contains("values of sensitive files"), "{}", text_of(&validated));
}

#[test]
fn more_than_a_part_is_refused() {
    let (stage, _) = stage();
    let data = vec![b'x'; 512 * 1024 + 1];
    let known = stage.refused(&FindValues { environment: None, data });
    assert!(matches!(known, Known::InvalidParameter { parameter } if parameter == "data"));
    let reply = stage.call(&FindValues { environment: None, data: Vec::new() });
    assert_eq!((reply.matches.len(), reply.values, reply.left_out), (0, 3, 1));
}

#[test]
fn a_file_that_holds_no_text_is_told() {
    let mut stage = Stage::new(SECTION);
    fs::write(stage.at(".env.bin"), b"KEY=\0x").unwrap();
    fs::write(stage.at(".env.big"), vec![b'#'; 300 * 1024]).unwrap();
    stage.start();
    let unlocked = stage.refused(&FindValues { environment: None, data: b"x\n".to_vec() });
    assert!(matches!(unlocked, Known::NoBaseline { .. }), "{unlocked:?}");
    stage.lock();
    let reply = stage.call(&FindValues { environment: None, data: b"x\n".to_vec() });
    let unread = reply.unread.join("\n");
    assert!(
        unread.contains(".env.bin: it is not text") && unread.contains(".env.big: longer than"),
        "{unread}"
    );
}

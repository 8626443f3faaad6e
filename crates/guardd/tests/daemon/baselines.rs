//! Baselines in the open: exported, checked by the system's own tools, and by guardd without a daemon.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use guard_api::Known;
use guard_api::method::{ExportBaseline, ExportBaselineReply};
use serde_json::Value;

use crate::stage::{ENV, PLAIN, SEALED, Stage, run, run_with_input, text_of};
use crate::tree::{chmod, mode, picture, write};

/// Names that text tools stumble over.
fn hostile_names(stage: &Stage) {
    for name in [
        &b"new\nline"[..],
        b"back\\slash",
        b"\\",
        b"carriage\rreturn",
        b" leading space",
        b"trailing space ",
        b"-rf",
        b"*",
        b"quote'\"$(id)`id`",
        b"invalid \xff\xfe utf-8",
        b"esc \x1b[31m red",
        b"tab\tand\x01control",
    ] {
        write(&stage.at("names").join(OsStr::from_bytes(name)), name);
    }
    write(&stage.at("names").join("x".repeat(255)), "longest");
    write(&stage.at("empty"), "");
    fs::create_dir(stage.at("names").join(OsStr::from_bytes(b"dir\n\xff"))).unwrap();
    write(&stage.at("names").join(OsStr::from_bytes(b"dir\n\xff/inside")), "x");
}

fn sha256sum(stage: &Stage, sums: &std::path::Path) -> std::process::Output {
    run(Command::new("sha256sum").args(["--check", "--quiet", "--strict"]).arg(sums).current_dir(stage.app()))
}

#[test]
fn sums_check_with_the_systems_own_tool_whatever_the_names_are() {
    let mut stage = Stage::new(SEALED);
    hostile_names(&stage);
    stage.start();
    stage.lock();
    let exported = stage.guardctl(["baseline", "export"]);
    assert!(exported.status.success(), "{}", text_of(&exported));
    fs::write(stage.path("SUMS"), &exported.stdout).unwrap();
    let done = sha256sum(&stage, &stage.path("SUMS"));
    assert!(done.status.success(), "{}", text_of(&done));
    // Every file is in it: take one away, change another.
    stage.unlock();
    fs::remove_file(stage.at("names").join(OsStr::from_bytes(b"invalid \xff\xfe utf-8"))).unwrap();
    fs::write(stage.at("names").join("new\nline"), "other").unwrap();
    let done = sha256sum(&stage, &stage.path("SUMS"));
    assert_eq!(done.status.code(), Some(1));
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(
        said.contains("new")
            && said.contains("invalid")
            && said.contains("1 computed checksum did NOT match"),
        "{said}"
    );
    // Findings name them so that a terminal is safe and nothing is lost.
    let paths: Vec<String> = stage.check().findings.into_iter().map(|f| f.path).collect();
    assert_eq!(paths, ["names/invalid \\xff\\xfe utf-8", "names/new\\x0aline"]);
}

#[test]
fn an_exported_directory_verifies_with_ssh_keygen_and_jq() {
    let stage = Stage::locked(SEALED);
    let to = stage.path("evidence");
    let done =
        stage.guardctl([OsStr::new("baseline"), OsStr::new("export"), OsStr::new("--to"), to.as_os_str()]);
    assert!(done.status.success(), "{}", text_of(&done));
    let manifest = fs::read(to.join("manifest.json")).unwrap();
    let done = run_with_input(
        Command::new("ssh-keygen")
            .args(["-Y", "verify", "-I", "guardd", "-n", "guardd-baseline", "-f"])
            .arg(stage.state("public/allowed_signers"))
            .arg("-s")
            .arg(to.join("manifest.json.sig")),
        &manifest,
    );
    assert!(done.status.success(), "{}", text_of(&done));
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    for (file, key) in [("SHA256SUMS", "sha256sums"), ("undo.jsonl", "undo")] {
        let sum = run(Command::new("sha256sum").arg(to.join(file)));
        let sum = String::from_utf8(sum.stdout).unwrap();
        assert_eq!(&sum[..64], manifest["digests"][key].as_str().unwrap(), "{file}");
    }
    let modes = run(Command::new("jq")
        .args(["-r", "select(.sealed) | .mode + \" \" + .path"])
        .arg(to.join("undo.jsonl")));
    let modes = String::from_utf8(modes.stdout).unwrap();
    assert!(modes.lines().any(|l| l == "0664 backend/app/orders.py"), "{modes}");
    // Not over what is there.
    let again =
        stage.guardctl([OsStr::new("baseline"), OsStr::new("export"), OsStr::new("--to"), to.as_os_str()]);
    assert!(
        !again.status.success()
            || fs::read(to.join("manifest.json")).unwrap()
                == serde_json::to_vec(&manifest).unwrap_or_default()
            || again.status.success()
    );
}

#[test]
fn single_files_and_generations_can_be_had() {
    let stage = Stage::locked(PLAIN);
    stage.unlock();
    fs::write(stage.at("compose.yml"), "second").unwrap();
    stage.lock();
    let file = |generation, name: &str| -> Vec<u8> {
        let asked = ExportBaseline { environment: None, generation, file: Some(name.into()) };
        let parts: Vec<ExportBaselineReply> =
            stage.client().call_more(&asked).unwrap().map(Result::unwrap).collect();
        assert!(parts.iter().all(|p| p.file == name));
        parts.into_iter().flat_map(|p| p.data).collect()
    };
    assert_ne!(file(Some(1), "SHA256SUMS"), file(Some(2), "SHA256SUMS"));
    assert_eq!(file(None, "SHA256SUMS"), file(Some(2), "SHA256SUMS"));
    assert_eq!(file(None, "manifest.json"), fs::read(stage.state("baseline/site/2/manifest.json")).unwrap());
    let wrong = |generation, file: Option<&str>| {
        let asked = ExportBaseline { environment: None, generation, file: file.map(str::to_owned) };
        match stage.client().call_more(&asked).unwrap().next().unwrap() {
            Err(guard_api::ClientError::Call(guard_api::CallError::Known(known))) => known,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(wrong(Some(9), None), Known::NoBaseline { generation: Some(9), .. }));
    for name in ["records", "../../keys/host", "/etc/passwd", ""] {
        assert!(matches!(wrong(None, Some(name)), Known::InvalidParameter { .. }), "{name}");
    }
}

#[test]
fn check_offline_tells_clean_from_changed() {
    let mut stage = Stage::locked(SEALED);
    let check = |stage: &Stage, more: &[&str]| {
        let done = stage.offline(["check", "--offline", "--json"].iter().chain(more));
        let said: Value =
            serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", text_of(&done)));
        (done.status.code(), said)
    };
    // Beside the running daemon, and without one.
    assert_eq!(check(&stage, &[]).0, Some(0));
    stage.stop();
    let (code, said) = check(&stage, &[ENV]);
    assert_eq!((code, &said["clean"], &said["generation"]), (Some(0), &Value::Bool(true), &1.into()));
    assert_eq!(check(&stage, &["--quick"]).0, Some(0));

    chmod(&stage.at("backend/app/orders.py"), 0o664);
    fs::write(stage.at("backend/app/orders.py"), "changed").unwrap();
    for more in [&[][..], &["--quick"]] {
        let (code, said) = check(&stage, more);
        assert_eq!(code, Some(1));
        assert_eq!(said["findings"][0]["path"], "backend/app/orders.py");
        assert_eq!(said["findings"].as_array().unwrap().len(), 1);
    }
    let text = text_of(&stage.offline(["check", "--offline"]));
    assert!(text.contains("content") && text.contains("backend/app/orders.py"), "{text}");

    // A tree that lies elsewhere now.
    fs::rename(stage.app(), stage.path("rescued")).unwrap();
    let done = stage.offline(["check", "--offline"]);
    assert_eq!(done.status.code(), Some(5), "{}", text_of(&done));
    assert!(text_of(&done).contains("--root"), "{}", text_of(&done));
    let rescued = stage.path("rescued");
    let (code, said) = check(&stage, &["--root", rescued.to_str().unwrap()]);
    assert_eq!((code, said["findings"].as_array().unwrap().len()), (Some(1), 1));
}

#[test]
fn check_offline_never_says_clean_of_what_it_cannot_verify() {
    let mut stage = Stage::locked(PLAIN);
    stage.stop();
    let code = |stage: &Stage| {
        let done = stage.offline(["check", "--offline"]);
        (done.status.code(), text_of(&done))
    };
    assert_eq!(code(&stage).0, Some(0));
    for file in [
        "baseline/site/1/records",
        "baseline/site/1/manifest.json",
        "baseline/site/1/manifest.json.sig",
        "locks/site.lock",
        "public/host.pub",
    ] {
        let path = stage.state(file);
        let good = fs::read(&path).unwrap();
        for (how, bad) in [
            ("empty", Vec::new()),
            ("garbage", b"\0\xffgarbage".to_vec()),
            ("cut", good[..good.len() / 2].to_vec()),
            ("flipped", {
                let mut b = good.clone();
                let at = b.len() / 3;
                b[at] ^= 0x20;
                b
            }),
        ] {
            fs::write(&path, bad).unwrap();
            let (code, said) = code(&stage);
            assert!(!matches!(code, Some(0 | 1)), "{file} {how}: {code:?} {said}");
            assert!(said.starts_with("guardd: "), "{file} {how}: {said}");
        }
        fs::remove_file(&path).unwrap();
        assert!(!matches!(code(&stage).0, Some(0 | 1)), "{file} missing");
        fs::write(&path, good).unwrap();
    }
    assert_eq!(code(&stage).0, Some(0));
    let nowhere = run(crate::stage::guardd().args(["check", "--offline", "--state-dir", "/nonexistent"]));
    assert_eq!(nowhere.status.code(), Some(5), "{}", text_of(&nowhere));
    let unknown = stage.offline(["check", "--offline", "elsewhere"]);
    assert_eq!(unknown.status.code(), Some(5), "{}", text_of(&unknown));
    let hostile = stage.offline(["check", "--offline", "../../etc"]);
    assert_eq!(hostile.status.code(), Some(2), "{}", text_of(&hostile));
}

#[test]
fn unseal_offline_gives_back_the_exact_modes() {
    let mut stage = Stage::new(SEALED);
    hostile_names(&stage);
    for m in [0o4755, 0o2775, 0o600, 0o222, 0o666] {
        write(&stage.at(format!("m{m:o}")), "x");
        chmod(&stage.at(format!("m{m:o}")), m);
    }
    let original = picture(&stage.app());
    stage.start();
    stage.lock();
    assert_ne!(picture(&stage.app()), original);
    let refused = stage.offline(["unseal", "--offline"]);
    assert_eq!(refused.status.code(), Some(3), "{}", text_of(&refused));
    assert!(text_of(&refused).contains("guardctl unlock"), "{}", text_of(&refused));
    stage.stop();
    let done = stage.offline(["unseal", "--offline", ENV]);
    assert_eq!(done.status.code(), Some(0), "{}", text_of(&done));
    assert_eq!(picture(&stage.app()), original);
    // The next daemon says that the seal is gone, and lock puts it back.
    stage.start();
    stage.finding_that_changes("backend/app/orders.py", guard_api::wire::Change::Seal);
    stage.lock();
    assert_eq!(mode(&stage.at("backend/app/orders.py")), 0o444);
    stage.unlock();
    assert_eq!(picture(&stage.app()), original);
    stage.stop();
    let done = stage.offline(["unseal", "--offline", "--all"]);
    assert_eq!(done.status.code(), Some(0), "{}", text_of(&done));
}

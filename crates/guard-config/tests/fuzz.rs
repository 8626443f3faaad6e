//! Whatever is written into a configuration, reading it ends with a
//! configuration that holds what it promises, or with messages that a terminal
//! can show.

use std::path::Path;

use guard_config::{SourceFile, parse};
use proptest::prelude::*;

/// A value, of every type and of none.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "1",
            "-1",
            "0",
            "1.5",
            "true",
            "[]",
            "{}",
            "1979-05-27",
            "\"\"",
            "\"/srv/app\"",
            "\"/srv/app/x\"",
            "\"/\"",
            "\"5m\"",
            "\"0s\"",
            "\"9d\"",
            "\"auto\"",
            "\"none\"",
            "\"immutable\"",
            "[\"*.pyc\"]",
            "[\"!x\", \"..\", \"[\"]",
            "[[1], {a = 2}]",
            "[\"/bin/true\", \"\\u0000\"]",
            "\"\\u001b[31m\\u202e\"",
            "99999999999999999999",
            "nan",
            "'''\n'''",
        ])
        .prop_map(str::to_owned),
        "\"[a-z/.*!\\[{~$ ]{0,12}\"",
        any::<String>(),
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "version",
            "daemon",
            "environments",
            "state_dir",
            "runtime_dir",
            "log_dir",
            "watch",
            "window_max",
            "allow",
            "root",
            "protect",
            "ignore",
            "writable",
            "sensitive",
            "seal",
            "rehash",
            "on_tamper",
            "branches",
            "window_default",
            "backup",
            "keep",
            "dir",
            "notify",
            "command",
            "lock",
            "\"\"",
            "\"a\\u001b.b\"",
            "rooot",
        ])
        .prop_map(str::to_owned),
        "[a-z_-]{1,8}",
    ]
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "[daemon]",
            "[daemon.allow]",
            "[environments]",
            "[environments.a]",
            "[environments.b]",
            "[environments.a.backup]",
            "[environments.b.notify]",
            "[[environments]]",
            "[environments.\"\"]",
            "version = 1",
            "version = 1",
            "# x",
            "",
        ])
        .prop_map(str::to_owned),
        (key(), value()).prop_map(|(k, v)| format!("{k} = {v}")),
        (key(), key(), value()).prop_map(|(a, b, v)| format!("{a}.{b} = {v}")),
        any::<String>(),
    ]
}

fn check(texts: &[String]) {
    let files: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(i, t)| SourceFile::new(Path::new("/etc/guardd").join(format!("{i}.toml")), t.clone()))
        .collect();
    match parse(&files) {
        Ok(config) => {
            assert!(!files.is_empty());
            let mut names = Vec::new();
            for e in &config.environments {
                assert!(e.root.is_absolute() && e.root != Path::new("/"));
                assert!(e.window_default <= config.daemon.window_max);
                assert_eq!(e.policy.text(), &e.patterns);
                assert!(e.name.len() <= 31 && !names.contains(&&e.name));
                for other in &config.environments {
                    assert!(e.name == other.name || !e.root.starts_with(&other.root));
                }
                names.push(&e.name);
            }
        }
        Err(problems) => {
            assert!(!problems.as_slice().is_empty());
            assert!(!problems.to_string().chars().any(|c| c.is_control() && c != '\n'), "{problems}");
            let lines: Vec<usize> =
                files.iter().map(|f| f.text.bytes().filter(|&b| b == b'\n').count() + 1).collect();
            for p in problems.as_slice() {
                assert!(!p.what.is_empty() && !p.fix.is_empty());
                assert!(!p.what.contains('\n') && !p.fix.contains('\n'), "{p}");
                let at = files.iter().position(|f| f.path == p.file).unwrap_or(0);
                let lines = lines.get(at).copied().unwrap_or(1);
                assert!(p.line.is_none_or(|l| l >= 1 && l as usize <= lines), "{p}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_text(texts in prop::collection::vec(any::<String>(), 0..3)) { check(&texts); }

    #[test]
    fn lines_that_look_right(lines in prop::collection::vec(line(), 0..20), more in prop::collection::vec(line(), 0..8)) {
        check(&[lines.join("\n"), more.join("\n")]);
    }

    #[test]
    fn good_tables_with_any_values(pairs in prop::collection::vec((key(), value()), 0..8)) {
        let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("{k} = {v}\n")).collect();
        check(&[format!("version = 1\n[environments.a]\nroot = '/srv/a'\n{}", pairs.concat())]);
    }

    #[test]
    fn a_good_file_with_one_byte_changed(at in 0..2000_usize, to: char) {
        let mut text: Vec<char> = include_str!("../../../packaging/guardd.toml").replace("\n#", "\n").chars().collect();
        let n = text.len();
        text[at % n] = to;
        check(&[text.into_iter().collect()]);
    }
}

/// A large file, whatever is in it, is read in a moment.
#[test]
fn large_files_are_no_trap() {
    let large = |line: &dyn Fn(usize) -> String| {
        let mut text = "version = 1\n".to_owned();
        for i in 0.. {
            let next = line(i);
            if text.len() + next.len() > 1 << 18 {
                return text;
            }
            text += &next;
        }
        text
    };
    let started = std::time::Instant::now();
    check(&[large(&|_| "?\n".to_owned())]);
    check(&[large(&|i| format!("x{i} = 1\n"))]);
    check(&[large(&|i| format!("[environments.e{i}]\nroot = '/srv/{i}'\n"))]);
    check(&[large(&|_| "[".to_owned())]);
    check(&[large(&|_| "a.".to_owned())]);
    check(&[format!("version = 1\n[environments.a]\nroot = '/a'\nprotect = [{}]", "'[', ".repeat(50_000))]);
    // Generous: debug builds on busy machines. What grows with the square takes hours.
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

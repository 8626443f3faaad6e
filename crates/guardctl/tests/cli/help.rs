//! The help is complete, and is what the golden files say.

use clap::Command;

use crate::support::run;

fn every_command(root: &Command, path: &[String], out: &mut Vec<Vec<String>>) {
    for c in root.get_subcommands().filter(|c| c.get_name() != "help") {
        let path = [path, &[c.get_name().to_owned()]].concat();
        out.push(path.clone());
        every_command(c, &path, out);
    }
}

#[test]
fn every_command_has_help() {
    let mut all = vec![Vec::new()];
    every_command(&guardctl::command(), &[], &mut all);
    assert!(all.len() > 20, "{all:?}");
    let nowhere = std::path::Path::new("/nonexistent");
    for path in all {
        // These hand --help to guardd itself.
        if matches!(path.first().map(String::as_str), Some("init" | "check-config" | "git")) {
            let words: Vec<&str> = ["help"].into_iter().chain(path.iter().map(String::as_str)).collect();
            run(nowhere, &words).golden(&format!("help-{}", path.join("-")));
            continue;
        }
        let words: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let ran = run(nowhere, &words);
        assert_eq!((ran.code(), ran.stderr().as_str()), (0, ""));
        assert!(ran.stdout().contains("\nExamples:\n"), "{path:?} has no examples");
        ran.golden(&format!("help{}", path.iter().map(|p| format!("-{p}")).collect::<String>()));
    }
}

#[test]
fn version_and_no_arguments() {
    let nowhere = std::path::Path::new("/nonexistent");
    let ran = run(nowhere, &["--version"]);
    assert_eq!(ran.stdout(), format!("guardctl {}\n", env!("CARGO_PKG_VERSION")));
    let ran = run(nowhere, &[]);
    assert_eq!(ran.code(), 2);
    assert!(ran.stderr().contains("Usage: guardctl"), "{}", ran.stderr());
}

//! Every message about a configuration text, as a user sees it. Each file in
//! `tests/messages/` is a case: the configuration (further files begin with
//! `=== PATH`), a line of dashes, and the text that is printed, with `ok` for
//! none. `UPDATE_MESSAGES=1 cargo test` writes the texts anew; read the diff.

use std::fs;
use std::path::{Path, PathBuf};

use guard_config::{SourceFile, parse};

const RULE: &str = "\n----------------------------------------\n";

fn sources(input: &str) -> Vec<SourceFile> {
    let mut out = Vec::new();
    let mut path = PathBuf::from("/etc/guardd/guardd.toml");
    let mut text = String::new();
    for line in input.split_inclusive('\n') {
        if let Some(next) = line.strip_prefix("=== ") {
            out.push(SourceFile::new(path, std::mem::take(&mut text)));
            path = Path::new("/etc/guardd").join(next.trim_end());
        } else {
            text.push_str(line);
        }
    }
    out.push(SourceFile::new(path, text));
    out
}

#[test]
fn every_message() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/messages");
    let update = std::env::var_os("UPDATE_MESSAGES").is_some();
    let mut failed = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(&cases).unwrap() {
        let path = entry.unwrap().path();
        let case = fs::read_to_string(&path).unwrap();
        let (input, expected) = case.split_once(RULE).unwrap_or((case.trim_end_matches('\n'), ""));
        let said = match parse(&sources(&format!("{input}\n"))) {
            Ok(_) => "ok".to_owned(),
            Err(problems) => problems.to_string(),
        };
        count += 1;
        if update {
            fs::write(&path, format!("{input}{RULE}{said}\n")).unwrap();
        } else if said != expected.trim_end_matches('\n') {
            failed.push(format!("{}\n--- expected\n{expected}\n--- said\n{said}\n", path.display()));
        }
    }
    assert!(count > 20, "the cases are missing");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

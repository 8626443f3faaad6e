//! Parsers that take one file: `bash -n`, `sh -n`, `php -l`.

use std::process::Command;

use super::finding::Remark;
use super::interpreter::{Parsed, run};

/// `bash -n` or `sh -n`, which read commands and execute none.
pub(super) fn check(shell: &'static str, content: &[u8]) -> Parsed {
    let mut command = Command::new(shell);
    command.arg("-n");
    let ran = match run(command, content) {
        Ok(ran) if ran.good => return Parsed::Good,
        Ok(ran) => ran,
        Err(why) => return Parsed::Unchecked(why),
    };
    let text = String::from_utf8_lossy(&ran.stderr);
    let first = text.lines().next().unwrap_or("it does not parse");
    // `bash: line 3: syntax error …`, `sh: 3: Syntax error: …`
    let mut parts = first.splitn(3, ": ").skip(1);
    let line = parts.next().and_then(|p| p.trim_start_matches("line ").parse().ok());
    Parsed::Bad(Remark::error("shell", line, parts.next().unwrap_or(first)))
}

/// `php -l`, without any configuration of the host.
pub(super) fn check_php(content: &[u8]) -> Parsed {
    let mut command = Command::new("php");
    command.args(["-n", "-d", "display_errors=stderr", "-l"]);
    let ran = match run(command, content) {
        Ok(ran) if ran.good => return Parsed::Good,
        Ok(ran) => ran,
        Err(why) => return Parsed::Unchecked(why),
    };
    let text = String::from_utf8_lossy(&[ran.stderr, ran.stdout].concat()).into_owned();
    let first = text.lines().find(|l| l.contains("error")).unwrap_or("it does not parse");
    let line = first.rsplit_once(" on line ").and_then(|(_, n)| n.trim().parse().ok());
    Parsed::Bad(Remark::error("php", line, first.split(" in ").next().unwrap_or(first)))
}

//! Validators that the configuration names: a pattern of paths, and a command
//! that gets each file's content on its standard input.

use std::process::Command;

use guard_model::path::escape;

use super::finding::Remark;
use super::interpreter::{Parsed, run};

/// A validator of the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnValidator {
    /// The pattern of paths, as those of `protect` are.
    pub pattern: String,
    /// An absolute program and its arguments.
    pub command: Vec<String>,
}

impl OwnValidator {
    pub(super) fn check(&self, path: &[u8], content: &[u8]) -> Parsed {
        let Some((program, arguments)) = self.command.split_first() else {
            return Parsed::Unchecked("its validator names no command".to_owned());
        };
        let mut command = Command::new(program);
        command.args(arguments).arg(escape(path));
        let ran = match run(command, content) {
            Ok(ran) if ran.good => return Parsed::Good,
            Ok(ran) => ran,
            Err(why) => return Parsed::Unchecked(why),
        };
        let said = if ran.stderr.trim_ascii().is_empty() { ran.stdout } else { ran.stderr };
        let text = String::from_utf8_lossy(&said);
        let first =
            text.lines().find(|l| !l.trim().is_empty()).unwrap_or("it said no, and nothing else").trim();
        let (line, column) = place(first);
        Parsed::Bad(Remark::error("own", line, format!("{program}: {first}")).at_column(column).hidden())
    }
}

/// Line and column of `file:12:3: message`, as compilers write it.
fn place(text: &str) -> (Option<u64>, Option<u64>) {
    let mut numbers = text.split(':').skip(1).map(|part| part.trim().parse().ok());
    let line = numbers.next().flatten();
    (line, line.and(numbers.next().flatten()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_compilers() {
        assert_eq!(place("x.c:12:3: no"), (Some(12), Some(3)));
        assert_eq!(place("x.c:12: no"), (Some(12), None));
        assert_eq!(place("no: way"), (None, None));
    }

    #[test]
    fn it_gets_the_content_and_says_yes_or_no() {
        let own = |script: &str| OwnValidator {
            pattern: "*".to_owned(),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        };
        assert!(matches!(own("grep -q good").check(b"a", b"good\n"), Parsed::Good));
        let Parsed::Bad(remark) = own("cat; exit 1").check(b"a", b"a:7: bad\n") else { panic!("it passed") };
        assert_eq!(remark.line, Some(7));
        let missing = OwnValidator { pattern: "*".to_owned(), command: vec!["/nonexistent/x".to_owned()] };
        assert!(matches!(missing.check(b"a", b""), Parsed::Unchecked(_)));
    }
}

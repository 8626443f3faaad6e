//! Files of variables: they are there, set what is required, and every reader that the project uses reads the same. No
//! value leaves this module.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use guard_model::deploy::{Validation, Verdict};
use guard_model::dotenv::{Dialect, Refused, Said, Variables, read};

use super::{Tell, gate, quoted};
use crate::bounded::Context;

/// Bytes of a file at most.
const LONGEST: u64 = 1 << 20;

/// What one reader takes from all files, the last one counting.
type Taken = BTreeMap<Dialect, Variables>;

pub(super) fn files(context: &Context, validation: &Validation, tell: &mut Tell<'_>) -> io::Result<()> {
    let mut taken: Taken = validation.readers.iter().map(|&r| (r, Variables::new())).collect();
    let mut lost = Vec::new();
    for name in &validation.env_files {
        let by_hand = format!("ls -l {}", quoted(name));
        let (verdict, evidence) = match content(&context.root.join(name)) {
            Ok(Some(content)) => match take(&content, &mut taken) {
                Ok(()) => (Verdict::Pass, "it is there, and every reader reads it".to_owned()),
                Err((reader, refused)) => {
                    lost.push(name.clone());
                    let Refused { line, why } = refused;
                    (Verdict::Fail, format!("line {line}: {why}: {reader} refuses the whole file"))
                }
            },
            Ok(None) => {
                lost.push(name.clone());
                (Verdict::Fail, "it is not there, or no file".to_owned())
            }
            Err(e) => {
                lost.push(name.clone());
                (Verdict::Unknown, format!("it cannot be read: {e}"))
            }
        };
        tell(gate("env-file", name, verdict, evidence, by_hand))?;
    }
    for name in &validation.required {
        let (verdict, evidence) = variable(name, &taken, &lost);
        let files = validation.env_files.iter().map(|f| quoted(f)).collect::<Vec<_>>().join(" ");
        let by_hand = format!("grep -nE -o '^[[:space:]]*(export )?{name}[[:space:]]*[=:]' {files}");
        tell(gate("variable", name, verdict, evidence, by_hand))?;
    }
    Ok(())
}

/// `None` where there is no such file.
fn content(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // A fifo would hold us for ever; what it is is asked of the handle.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = match std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut content = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut content)?;
    match content.len() as u64 > LONGEST {
        true => Err(io::Error::other("it is longer than 1 MiB")),
        false => Ok(Some(content)),
    }
}

fn take(content: &[u8], taken: &mut Taken) -> Result<(), (Dialect, Refused)> {
    let mut worst = Ok(());
    for (&reader, variables) in taken.iter_mut() {
        match read(content, reader) {
            Ok(found) => variables.extend(found),
            Err(refused) => worst = Err((reader, refused)),
        }
    }
    worst
}

/// How a required variable stands.
fn variable(name: &str, taken: &Taken, lost: &[String]) -> (Verdict, String) {
    let with = |wanted: fn(Option<&Said>) -> bool| -> Vec<&'static str> {
        let of = taken.iter().filter(|(_, found)| wanted(found.get(name)));
        of.map(|(reader, _)| reader.word()).collect()
    };
    let lost = match lost {
        [] => String::new(),
        files => format!(" (without {}, which could not be read)", files.join(", ")),
    };
    let unset = with(|said| said.is_none());
    if unset.len() == taken.len() {
        return (Verdict::Fail, format!("it is not set{lost}"));
    }
    if !unset.is_empty() {
        return (Verdict::Fail, format!("it is not set for {}{lost}", unset.join(", ")));
    }
    let empty = with(|said| matches!(said, Some(Said::Value(v)) if v.trim().is_empty()));
    if !empty.is_empty() {
        return (Verdict::Fail, format!("it is empty for {}{lost}", empty.join(", ")));
    }
    let unclear = taken.iter().find_map(|(reader, found)| match found.get(name) {
        Some(Said::Unclear(why)) => Some((reader, why)),
        _ => None,
    });
    if let Some((reader, why)) = unclear {
        return (Verdict::Unknown, format!("what {reader} reads cannot be told: {why}{lost}"));
    }
    let mut readers = taken.iter().map(|(reader, found)| (reader, found.get(name)));
    let Some((first, value)) = readers.next() else {
        return (Verdict::Unknown, "no reader is named".to_owned());
    };
    let others: Vec<&str> = readers.filter(|(_, v)| *v != value).map(|(reader, _)| reader.word()).collect();
    match others.as_slice() {
        [] if taken.len() == 1 => (Verdict::Pass, format!("it is set{lost}")),
        [] => (Verdict::Pass, format!("it is set, and {} readers read the same{lost}", taken.len())),
        others => (
            Verdict::Fail,
            format!("{} reads another value than {first}: quotes, `$` or `#`", others.join(", ")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guard_model::deploy::Gate;

    fn look(files: &[(&str, &str)], required: &[&str], readers: &[Dialect]) -> Vec<Gate> {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let validation = Validation {
            env_files: vec![".env".to_owned(), ".env.prod".to_owned()],
            required: required.iter().map(|r| (*r).to_owned()).collect(),
            readers: readers.to_vec(),
            ..Validation::default()
        };
        let mut told = Vec::new();
        let context = crate::bounded::tests::context(dir.path());
        super::files(&context, &validation, &mut |g| {
            told.push(g);
            Ok(())
        })
        .unwrap();
        told
    }

    fn verdicts(gates: &[Gate]) -> Vec<(&str, Verdict)> {
        gates.iter().map(|g| (g.subject.as_str(), g.verdict)).collect()
    }

    #[test]
    fn files_and_variables() {
        let all = look(
            &[(".env", "A=1\nB=\nSECRET=hunter2\n"), (".env.prod", "B=2\nC='x'\n")],
            &["A", "B", "C", "NONE"],
            &[Dialect::Compose, Dialect::PythonDotenv],
        );
        use Verdict::{Fail, Pass};
        assert_eq!(
            verdicts(&all),
            [(".env", Pass), (".env.prod", Pass), ("A", Pass), ("B", Pass), ("C", Pass), ("NONE", Fail)]
        );
        let missing = look(&[(".env", "A=1\n")], &["A"], &[Dialect::Compose]);
        assert_eq!(verdicts(&missing), [(".env", Pass), (".env.prod", Fail), ("A", Pass)]);
        assert!(missing[2].evidence.contains("without .env.prod"));
    }

    #[test]
    fn readers_that_disagree_are_named_and_no_value_is() {
        let files =
            [(".env", "KEY='hunter2#x'\nDOLLAR=a$$hunter2\nCMD=$(hunter2)\n"), (".env.prod", "E= \n")];
        let all = look(&files, &["KEY", "DOLLAR", "CMD", "E"], &Dialect::ALL);
        let of = |name: &str| all.iter().find(|g| g.subject == name).unwrap();
        assert_eq!(of("KEY").verdict, Verdict::Fail);
        assert!(
            of("KEY").evidence.starts_with("docker-run reads another value than compose"),
            "{:?}",
            of("KEY")
        );
        assert_eq!(of("DOLLAR").verdict, Verdict::Unknown);
        assert_eq!(of("CMD").verdict, Verdict::Unknown);
        assert_eq!(of("E").verdict, Verdict::Fail);
        assert!(all.iter().all(|g| !format!("{g:?}").contains("hunter2")), "a value is shown");
    }

    #[test]
    fn a_file_that_a_reader_refuses_fails() {
        let all =
            look(&[(".env", "A=1\n;c\n"), (".env.prod", "")], &["A"], &[Dialect::Compose, Dialect::Systemd]);
        assert_eq!(all[0].verdict, Verdict::Fail);
        assert!(all[0].evidence.contains("line 2") && all[0].evidence.contains("compose"), "{:?}", all[0]);
        assert_eq!(all[2].verdict, Verdict::Fail, "compose sets nothing");
    }

    #[test]
    fn a_fifo_holds_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("f");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(content(&fifo).unwrap().is_none());
        assert!(content(&dir.path().join("none")).unwrap().is_none());
    }
}

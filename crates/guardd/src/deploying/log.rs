//! What a deployment's steps print: one file each, a JSON object a line. It is for people, and decides nothing; the ledger
//! has what happened.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use guard_model::Timestamp;
use guard_model::deploy::Phase;
use guard_model::path::escape;
use guard_store::StatePaths;
use serde::{Deserialize, Serialize};

use crate::operations::now;

/// Logs that are kept of one environment.
const KEPT: usize = 50;
/// Longest line; what is longer is cut into several.
const LONGEST: usize = 4096;

/// Who said a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// guardd itself.
    Guardd,
    /// A step, on its standard output.
    Out,
    /// A step, on its standard error.
    Err,
}

impl Source {
    /// As it goes over the wire.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Guardd => "guardd",
            Self::Out => "out",
            Self::Err => "err",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) at: Timestamp,
    pub(crate) phase: Option<Phase>,
    pub(crate) step: Option<String>,
    pub(crate) source: Source,
    /// Escaped.
    pub(crate) text: String,
}

/// A log that is being written. A line that cannot be written is lost: nothing waits for it.
#[derive(Debug, Default)]
pub(crate) struct Log {
    file: Option<File>,
    phase: Option<Phase>,
    step: Option<String>,
    /// What came of a line that is not at its end, on both streams.
    begun: [Vec<u8>; 2],
}

impl Log {
    /// Opens the log of a deployment, at its end where there is one. Old ones go.
    pub(crate) fn open(paths: &StatePaths, environment: &str, deployment: u64) -> io::Result<Self> {
        let dir = paths.deployments_of(environment).map_err(io::Error::other)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path(&dir, deployment))?;
        remove_old(&dir)?;
        Ok(Self { file: Some(file), ..Self::default() })
    }

    /// What follows belongs to this part.
    pub(crate) fn at(&mut self, phase: Phase, step: Option<&str>) {
        self.flush();
        self.phase = Some(phase);
        self.step = step.map(str::to_owned);
    }

    /// guardd's own words.
    pub(crate) fn says(&mut self, text: &str) {
        self.write(Source::Guardd, text.as_bytes());
    }

    /// What a step printed, in pieces as they come.
    pub(crate) fn printed(&mut self, source: Source, piece: &[u8]) {
        let stream = usize::from(source == Source::Err);
        for part in piece.split_inclusive(|b| *b == b'\n') {
            let Some(begun) = self.begun.get_mut(stream) else { return };
            begun.extend_from_slice(part);
            if part.ends_with(b"\n") || begun.len() >= LONGEST {
                let line = std::mem::take(begun);
                self.write(source, line.strip_suffix(b"\n").unwrap_or(&line));
            }
        }
    }

    /// Writes the lines that are not at their ends.
    pub(crate) fn flush(&mut self) {
        for (stream, source) in [Source::Out, Source::Err].into_iter().enumerate() {
            let line = self.begun.get_mut(stream).map(std::mem::take).unwrap_or_default();
            if !line.is_empty() {
                self.write(source, &line);
            }
        }
    }

    fn write(&mut self, source: Source, text: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let plain: Vec<u8> = text.iter().map(|b| if *b == b'\t' { b' ' } else { *b }).collect();
        let plain = plain.strip_suffix(b"\r").unwrap_or(&plain);
        let (phase, step, text) = (self.phase, self.step.clone(), escape(plain));
        let line = Line { at: now(), phase, step, source, text };
        let Ok(mut bytes) = serde_json::to_vec(&line) else { return };
        bytes.push(b'\n');
        if let Err(e) = file.write_all(&bytes) {
            tracing::warn!(error = %e, "a deployment's output cannot be kept");
            self.file = None;
        }
    }
}

fn path(dir: &std::path::Path, deployment: u64) -> PathBuf {
    dir.join(format!("{deployment}.jsonl"))
}

fn remove_old(dir: &std::path::Path) -> io::Result<()> {
    let mut ids: Vec<u64> = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        ids.extend(name.to_str().and_then(|name| name.strip_suffix(".jsonl")?.parse::<u64>().ok()));
    }
    ids.sort_unstable();
    let too_many = ids.len().saturating_sub(KEPT);
    ids.iter().take(too_many).try_for_each(|id| std::fs::remove_file(path(dir, *id)))
}

/// Reads a log that may still be written, a part at a time.
pub(crate) struct Reader {
    path: PathBuf,
    read: u64,
}

impl Reader {
    pub(crate) fn new(paths: &StatePaths, environment: &str, deployment: u64) -> io::Result<Self> {
        let dir = paths.deployments_of(environment).map_err(io::Error::other)?;
        Ok(Self { path: path(&dir, deployment), read: 0 })
    }

    /// The whole lines that came since the last time, at most so many. None where there is no log (any more).
    pub(crate) fn more(&mut self, most: usize) -> io::Result<Vec<Line>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        file.seek(SeekFrom::Start(self.read))?;
        let mut file = BufReader::new(file);
        let mut lines = Vec::new();
        while lines.len() < most {
            let mut bytes = Vec::new();
            let read = file.by_ref().take(8 * LONGEST as u64).read_until(b'\n', &mut bytes)?;
            if !bytes.ends_with(b"\n") {
                break;
            }
            self.read += read as u64;
            // What a crash left torn is skipped.
            lines.extend(serde_json::from_slice::<Line>(&bytes));
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[Line]) -> Vec<(Source, &str)> {
        lines.iter().map(|l| (l.source, l.text.as_str())).collect()
    }

    #[test]
    fn lines_come_whole_escaped_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let mut log = Log::open(&paths, "site", 7).unwrap();
        let mut reader = Reader::new(&paths, "site", 7).unwrap();
        log.at(Phase::Step, Some("up"));
        log.says("step up");
        log.printed(Source::Out, b"one\ntw");
        log.printed(Source::Err, b"\x1b[31mred\n");
        assert_eq!(
            texts(&reader.more(100).unwrap()),
            [(Source::Guardd, "step up"), (Source::Out, "one"), (Source::Err, "\\x1b[31mred")]
        );
        log.printed(Source::Out, b"o\tand\r\nlast");
        log.flush();
        let more = reader.more(100).unwrap();
        assert_eq!(texts(&more), [(Source::Out, "two and"), (Source::Out, "last")]);
        assert_eq!(more[0].step.as_deref(), Some("up"));
        assert!(reader.more(100).unwrap().is_empty());
    }

    #[test]
    fn an_endless_line_is_cut_and_old_logs_go() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let mut log = Log::open(&paths, "site", 1).unwrap();
        log.printed(Source::Out, &vec![b'x'; 3 * LONGEST]);
        let lines = Reader::new(&paths, "site", 1).unwrap().more(100).unwrap();
        assert_eq!(lines.iter().map(|l| l.text.len()).sum::<usize>(), 3 * LONGEST);
        for id in 2..60 {
            Log::open(&paths, "site", id).unwrap();
        }
        assert_eq!(std::fs::read_dir(paths.deployments_of("site").unwrap()).unwrap().count(), KEPT);
        assert!(Reader::new(&paths, "site", 1).unwrap().more(1).unwrap().is_empty());
    }
}

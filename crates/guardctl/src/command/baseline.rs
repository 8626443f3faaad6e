//! Baselines: list the generations, export one.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use guard_api::Exit;
use guard_api::method::{ExportBaseline, ExportBaselineReply, ListBaselines};
use serde_json::json;

use super::look;
use crate::arguments::Baseline;
use crate::ctl::{Ctl, Outcome, Wait};
use crate::failure::Failure;
use crate::safe::Safe;
use crate::view::baseline;

/// The file that `sha256sum -c` reads.
const SUMS: &str = "SHA256SUMS";

pub(crate) fn dispatch(ctl: &mut Ctl, command: Baseline) -> Outcome {
    match command {
        Baseline::List { environment } => list(ctl, environment),
        Baseline::Export { environment, generation, to: Some(dir) } => {
            write_all(ctl, ExportBaseline { environment, generation, file: None }, &dir)
        }
        Baseline::Export { environment, generation, to: None } => {
            print_sums(ctl, ExportBaseline { environment, generation, file: Some(SUMS.to_owned()) })
        }
    }
}

fn list(ctl: &mut Ctl, environment: Option<String>) -> Outcome {
    let mut answer = ctl.call("list baselines", &ListBaselines { environment })?;
    if ctl.json {
        ctl.print_json(&answer.json["baselines"].take())?;
    } else {
        ctl.print(&baseline::list(look(ctl), &answer.value.baselines))?;
    }
    Ok(Exit::Done)
}

/// One file of the stream, until the next begins.
#[derive(Debug)]
struct Arriving {
    file: String,
    size: u64,
    received: u64,
}

/// Keeps count of what arrives, so that a file cut short is never taken for whole.
#[derive(Debug, Default)]
struct Parts {
    current: Option<Arriving>,
    done: Vec<(String, u64)>,
}

impl Parts {
    /// Counts a part in; true where it starts a file.
    fn take(&mut self, part: &ExportBaselineReply) -> Result<bool, Failure> {
        let starts = self.current.as_ref().is_none_or(|c| c.file != part.file);
        if starts {
            self.close()?;
            self.current = Some(Arriving { file: part.file.clone(), size: part.size, received: 0 });
        }
        if let Some(c) = &mut self.current {
            c.received = c.received.saturating_add(u64::try_from(part.data.len()).unwrap_or(u64::MAX));
        }
        Ok(starts)
    }

    /// The current file ends here.
    fn close(&mut self) -> Result<(), Failure> {
        let Some(c) = self.current.take() else { return Ok(()) };
        if c.received != c.size {
            let what = format!("cannot export: {} of {} bytes of {} arrived", c.received, c.size, c.file);
            return Err(Failure::new(Exit::Failed, what).hint("try again; see: journalctl -u guardd -n 50"));
        }
        self.done.push((c.file, c.size));
        Ok(())
    }
}

fn print_sums(ctl: &mut Ctl, method: ExportBaseline) -> Outcome {
    let mut parts = Parts::default();
    let mut meta = None;
    let mut text = Vec::new();
    ctl.call_stream("export the baseline", &method, Wait::Timeout, |ctl, answer| {
        let part = answer.value;
        parts.take(&part)?;
        if ctl.json {
            text.extend_from_slice(&part.data);
        } else if ctl.terminal.shows_data {
            // Line by line would be nicer, but a part may end inside of one.
            text.extend_from_slice(&part.data);
        } else {
            ctl.print_bytes(&part.data)?;
        }
        meta = Some((part.environment, part.generation, part.root));
        Ok(())
    })?;
    parts.close()?;
    let (environment, generation, root) = meta.ok_or_else(nothing_sent)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    if ctl.json {
        ctl.print_json(
            &json!({ "environment": environment, "generation": generation, "root": root, SUMS: text }),
        )?;
        return Ok(Exit::Done);
    }
    for line in text.lines() {
        ctl.print(&format!("{}\n", Safe(line)))?;
    }
    ctl.hint(&[format!("check it without guardd: cd {} && sha256sum -c --quiet FILE", Safe(&root))])?;
    Ok(Exit::Done)
}

fn nothing_sent() -> Failure {
    Failure::new(Exit::Failed, "cannot export the baseline: guardd sent nothing")
}

fn write_all(ctl: &mut Ctl, method: ExportBaseline, dir: &Path) -> Outcome {
    fs::create_dir_all(dir).map_err(|e| cannot("make", dir, &e))?;
    let mut parts = Parts::default();
    let mut open: Option<(PathBuf, File)> = None;
    let mut meta = None;
    ctl.call_stream("export the baseline", &method, Wait::Timeout, |_, answer| {
        let part = answer.value;
        if parts.take(&part)? {
            let path = dir.join(plain_name(&part.file)?);
            // Evidence is not written over, and not through somebody's link.
            let file = File::create_new(&path).map_err(|e| cannot("make", &path, &e))?;
            open = Some((path, file));
        }
        if let Some((path, file)) = &mut open {
            file.write_all(&part.data).map_err(|e| cannot("write", path, &e))?;
        }
        meta = Some((part.environment, part.generation, part.root));
        Ok(())
    })?;
    parts.close()?;
    let (environment, generation, root) = meta.ok_or_else(nothing_sent)?;
    if ctl.json {
        let files: Vec<_> =
            parts.done.iter().map(|(name, size)| json!({ "name": name, "size": size })).collect();
        let value =
            json!({ "environment": environment, "generation": generation, "root": root, "files": files });
        ctl.print_json(&value)?;
        return Ok(Exit::Done);
    }
    for (name, _) in &parts.done {
        ctl.print(&format!("{}\n", Safe(&dir.join(name).display().to_string())))?;
    }
    let allowed = dir.join("allowed_signers");
    if parts.done.iter().any(|(name, _)| name == "allowed_signers") {
        ctl.hint(&[format!(
            "verify it: ssh-keygen -Y verify -f {} -I guardd -n guardd-baseline -s {} < {}",
            allowed.display(),
            dir.join("manifest.json.sig").display(),
            dir.join("manifest.json").display()
        )])?;
    }
    Ok(Exit::Done)
}

/// A name that stays in the directory, whatever the daemon says.
fn plain_name(name: &str) -> Result<&str, Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(Failure::new(
            Exit::Failed,
            format!("cannot export: guardd names a file {name}, which is no plain name"),
        ));
    }
    Ok(name)
}

fn cannot(verb: &str, path: &Path, e: &std::io::Error) -> Failure {
    let failure = Failure::new(Exit::Failed, format!("cannot {verb} {}: {e}", path.display()));
    if e.kind() == std::io::ErrorKind::AlreadyExists {
        failure.hint("export to a new directory")
    } else {
        failure
    }
}

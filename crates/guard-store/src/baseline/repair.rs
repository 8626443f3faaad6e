//! A generation says everything twice: what damage took from one file is made
//! anew from another, as long as the signed manifest stands.

use std::io::{BufRead as _, BufReader, Seek as _};
use std::path::Path;

use guard_model::Digest;
use guard_model::baseline::BaselineRecord;

use super::reader::{check_digest, read_manifest};
use super::runs::Sorter;
use super::writer::write_records;
use super::{MANIFEST, RECORDS, SUMS, UNDO};
use crate::durable::{self, Temporary};
use crate::error::{Damage, StoreError};
use crate::keys::PublicKey;
use crate::state_dir::make_dir;

/// Makes `records` and `SHA256SUMS` anew from `undo.jsonl` where they are not
/// what was signed; says which. What is made is what was signed, to the byte, or
/// nothing is made.
///
/// # Errors
/// As [`super::Baseline::open`] where manifest, signature or `undo.jsonl` are damaged, too.
pub fn repair(dir: &Path, expected: &Digest, key: &PublicKey) -> Result<Vec<&'static str>, StoreError> {
    let (manifest, digest) = read_manifest(dir, key)?;
    if digest != *expected {
        let why = Damage::Digest { expected: *expected, found: digest };
        return Err(StoreError::damaged(&dir.join(MANIFEST), why));
    }
    let path = dir.join(UNDO);
    let mut undo = durable::open_regular(&path)?;
    check_digest(&undo, &path, manifest.digests.undo)?;
    undo.rewind().map_err(StoreError::io("read", &path))?;

    // The name is one that leftovers are known by.
    let scratch = dir.with_extension("tmp");
    match std::fs::remove_dir_all(&scratch) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(StoreError::io("remove", &scratch)(e));
        }
        _ => make_dir(&scratch, 0o700)?,
    }
    let scratch = Temporary::dir(scratch);
    let mut sorter = Sorter::new(scratch.path());
    for (n, line) in BufReader::new(undo).split(b'\n').enumerate() {
        let line = line.map_err(StoreError::io("read", &path))?;
        let record: BaselineRecord = serde_json::from_slice(&line).map_err(|e| {
            StoreError::damaged(&path, Damage::Line { line: n as u64 + 1, why: e.to_string() })
        })?;
        sorter.push(&record)?;
    }
    let (made, _) = write_records(scratch.path(), sorter)?;
    let mut repaired = Vec::new();
    for (name, signed, made) in [
        (RECORDS, manifest.digests.records, made.records),
        (SUMS, manifest.digests.sha256sums, made.sha256sums),
    ] {
        let path = dir.join(name);
        let is_good = durable::open_regular(&path).and_then(|f| check_digest(&f, &path, signed)).is_ok();
        if is_good {
            continue;
        }
        if made != signed {
            return Err(StoreError::damaged(&path, Damage::Digest { expected: signed, found: made }));
        }
        durable::move_directory_aside(&path)?;
        std::fs::rename(scratch.path().join(name), &path).map_err(StoreError::io("replace", &path))?;
        repaired.push(name);
    }
    durable::sync_dir(dir)?;
    Ok(repaired)
}

//! Baselines: one directory a generation, never rewritten.
//!
//! `manifest.json` is signed and holds the SHA-256 of the three others:
//! `SHA256SUMS` and `undo.jsonl` for people and their tools, and `records`,
//! which guardd reads by blocks so that a large tree costs little memory.

mod codec;
mod generations;
mod lines;
mod reader;
mod repair;
mod runs;
mod sums;
mod table;
mod writer;

pub use generations::{KEEP, discard, generations, next_generation, prune, remove_unfinished};
pub use reader::{Baseline, Records};
pub use repair::repair;
pub use runs::{EncodedRecords, FullRun};
pub use writer::{BaselineWriter, Committed, ManifestDraft};

/// The signed manifest.
pub const MANIFEST: &str = "manifest.json";
/// Its detached signature, namespace `guardd-baseline`.
pub const SIGNATURE: &str = "manifest.json.sig";
/// SHA-256 of every regular file, in coreutils' format.
pub const SUMS: &str = "SHA256SUMS";
/// Every record as a line of JSON: the attributes to give back.
pub const UNDO: &str = "undo.jsonl";
/// Every record in guardd's compact form.
pub const RECORDS: &str = "records";

//! Backups of one environment: a signed manifest and immutable encrypted packs,
//! shared between backups by the digest of their content.
//!
//! ```text
//! backups/ENV/packs/SHA256.tar.zst.age   SHA-256 of the file itself; members are named by their content's
//! backups/ENV/ID/manifest.json           small and signed, nothing secret in it
//! backups/ENV/ID/manifest.json.sig       SSHSIG by the host key, namespace guardd-backup
//! backups/ENV/ID/entries.jsonl.zst.age   every path with its attributes, its digest and its pack
//! backups/ENV/ID/pinned                  there where somebody pinned it
//! ```
//!
//! Architecture invariant: neither a path nor the digest of a content stands
//! here in the clear, and no plaintext is ever written to a disk. age says that
//! what is read is what was encrypted; the signed manifest says that it is ours.
//! A backup appears whole by a rename, after everything it needs is on the disk.

mod dir;
mod entries;
mod error;
mod export;
mod held;
mod keep;
mod keys;
mod pack;
mod proofs;
mod reader;
mod sealed;
mod store;
mod unpacking;
mod verify;
mod writer;

pub use entries::ENTRIES;
pub use error::{BackupError, Refusal, Undecrypted, Unencrypted};
pub use keep::{HeldBack, Pin, Pruned};
pub use keys::{BackupKeys, HOST_IDENTITY, RECOVERY_RECIPIENT, RecoveryKey};
pub use reader::{Backup, Entries};
pub use store::{Backups, Listed, Remembered, Which};
pub use unpacking::Unpacking;
pub use verify::{Pulse, Scope, Verified};
pub use writer::{BackupDraft, BackupWriter, Made, Stored};

/// The signed manifest's file name.
pub const MANIFEST: &str = "manifest.json";
/// Its detached signature's, namespace [`crate::keys::NAMESPACE_BACKUP`].
pub const SIGNATURE: &str = "manifest.json.sig";
/// The files in `keys/` that backups are encrypted by.
pub const KEY_FILES: [&str; 2] = [HOST_IDENTITY, RECOVERY_RECIPIENT];
/// The directory of the packs.
const PACKS: &str = "packs";
/// Ends the name of a backup that is being written.
const UNFINISHED: &str = ".tmp";
/// Begins the name of a pack that is being written.
const NEW_PACK: &str = ".new-";
/// The file that keeps a backup from being removed.
const PINNED: &str = "pinned";

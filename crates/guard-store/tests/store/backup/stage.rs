//! Backups of files that are only in memory.

use std::sync::{Arc, RwLock};

use guard_model::{BackupKind, Timestamp};
use guard_store::backup::{BackupDraft, BackupError, BackupKeys, Backups, Made, Remembered, Stored, Which};

use crate::support::{Fixture, digest, record};

pub(crate) const NOW: Timestamp = Timestamp(1_795_300_000_000_000);
pub(crate) const MACHINE: &str = "0123456789abcdef0123456789abcdef";

pub(crate) struct Stage {
    pub(crate) f: Fixture,
    pub(crate) keys: Arc<RwLock<BackupKeys>>,
    pub(crate) backups: Backups,
}

pub(crate) type Files<'a> = &'a [(&'a [u8], &'a [u8])];

impl Stage {
    pub(crate) fn new() -> Self {
        let f = Fixture::new();
        let keys = Arc::new(RwLock::new(BackupKeys::load_or_create(&f.state, NOW).unwrap()));
        let backups = open(&f, &keys, "production", Remembered::default()).unwrap();
        Self { f, keys, backups }
    }

    /// The same backups as another start of the daemon finds them.
    pub(crate) fn again(&self) -> Backups {
        self.remembering(Remembered::default())
    }

    pub(crate) fn remembering(&self, remembered: Remembered) -> Backups {
        open(&self.f, &self.keys, "production", remembered).unwrap()
    }

    pub(crate) fn back_up(&self, files: Files<'_>) -> Made {
        back_up(&self.backups, &self.f, NOW, files).unwrap()
    }
}

pub(crate) fn open(
    f: &Fixture,
    keys: &Arc<RwLock<BackupKeys>>,
    environment: &str,
    remembered: Remembered,
) -> Result<Backups, BackupError> {
    let keys = Arc::clone(keys);
    Backups::open(&f.state, None, environment, MACHINE, keys, f.key.public(), remembered)
}

pub(crate) fn draft(at: Timestamp) -> BackupDraft {
    BackupDraft {
        kind: BackupKind::Manual,
        at,
        by: "root (uid 0)".into(),
        note: None,
        root: "/srv/app".into(),
        generation: Some(3),
    }
}

pub(crate) fn back_up(
    backups: &Backups,
    f: &Fixture,
    at: Timestamp,
    files: Files<'_>,
) -> Result<Made, BackupError> {
    let mut writer = backups.begin(draft(at))?;
    for (path, content) in files {
        let record = record(path, content);
        let stored = writer.store(&digest(content), content.len() as u64, &mut &**content)?;
        assert_eq!(stored, Stored::Yes);
        writer.push(&record, None)?;
    }
    writer.finish(&f.key)
}

/// A path and what is in its file.
pub(crate) type Content = (Vec<u8>, Vec<u8>);

/// Everything that a backup holds: paths and contents.
pub(crate) fn contents(backups: &Backups, which: &Which) -> Result<Vec<Content>, BackupError> {
    let backup = backups.open_backup(which)?;
    let mut found = Vec::new();
    for entry in backup.entries()? {
        let record = entry?.record;
        let mut content = Vec::new();
        backups.content(&record.entry.sha256.unwrap(), &mut content)?;
        found.push((record.path.as_bytes().to_vec(), content));
    }
    Ok(found)
}

/// Bytes that do not compress: a small generator with a seed (xorshift64*).
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            u8::try_from(state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56).unwrap()
        })
        .collect()
}

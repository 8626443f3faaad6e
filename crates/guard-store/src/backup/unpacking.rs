//! Many contents one after the other. Neighbours in a tree lie in one pack, which has to be decrypted from its beginning
//! up to what is wanted: it stays open, and what it was read past is kept in memory.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use guard_model::Digest;

use super::error::BackupError;
use super::pack::{FULL, PackReader, name_of};
use super::store::Backups;

/// Reads contents of an environment's backups; for as long as one thing is being done. A content costs what lies between
/// it and the one before, and the memory is that of one pack of small contents.
#[derive(Debug)]
pub struct Unpacking {
    backups: Arc<Backups>,
    open: Mutex<Option<Open>>,
}

/// The pack that was read last.
struct Open {
    pack: Digest,
    /// Nothing at its end.
    reader: Option<PackReader>,
    passed: HashMap<Digest, Vec<u8>>,
}

impl std::fmt::Debug for Open {
    /// Without what is in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").field("pack", &self.pack).finish_non_exhaustive()
    }
}

impl Unpacking {
    /// Nothing is read yet.
    #[must_use]
    pub fn of(backups: Arc<Backups>) -> Self {
        Self { backups, open: Mutex::new(None) }
    }

    /// Whose contents these are.
    #[must_use]
    pub fn backups(&self) -> &Backups {
        &self.backups
    }

    /// As [`Backups::content`].
    ///
    /// # Errors
    /// As [`Backups::content`].
    pub fn content(&self, digest: &Digest, out: &mut dyn Write) -> Result<(), BackupError> {
        let _reading = self.backups.reading();
        let pack = self.backups.pack_of(digest)?;
        let mut place = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Where it fails it is begun anew the next time.
        if let Some(mut open) = place.take().filter(|open| open.pack == pack)
            && open.content(digest, out)?
        {
            *place = Some(open);
            return Ok(());
        }
        let mut open = self.begin(pack)?;
        if !open.content(digest, out)? {
            let path = self.backups.packs.path_of(&name_of(&pack));
            return Err(BackupError::content(&path, format!("it lacks {digest}")));
        }
        *place = Some(open);
        Ok(())
    }

    fn begin(&self, pack: Digest) -> Result<Open, BackupError> {
        let reader = PackReader::open(&self.backups.packs, &pack, &self.backups.keys())?;
        Ok(Open { pack, reader: Some(reader), passed: HashMap::new() })
    }
}

impl Open {
    /// False, with nothing written, where it is not among what is kept nor ahead.
    fn content(&mut self, digest: &Digest, out: &mut dyn Write) -> Result<bool, BackupError> {
        if let Some(known) = self.passed.get(digest) {
            out.write_all(known).map_err(BackupError::Sink)?;
            return Ok(true);
        }
        while let Some(reader) = &mut self.reader {
            let Some((member, size)) = reader.next()? else {
                self.reader = None;
                break;
            };
            // A large one is alone in its pack; it goes through and is not kept.
            if size > FULL {
                if member == *digest {
                    reader.content(digest, out)?;
                    return Ok(true);
                }
                continue;
            }
            let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
            reader.content(&member, &mut content)?;
            let known = self.passed.entry(member).or_insert(content);
            if member == *digest {
                out.write_all(known).map_err(BackupError::Sink)?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

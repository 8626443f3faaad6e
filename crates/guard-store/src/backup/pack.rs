//! Packs: encrypted tar archives whose members are named by the SHA-256 of
//! their content, so that `tar` opens them and each content is there once.

use std::io::{self, Read, Write as _};
use std::path::Path;

use guard_model::Digest;
use guard_model::backup::Ciphertext;
use sha2::{Digest as _, Sha256};

use super::dir::Dir;
use super::error::BackupError;
use super::keys::BackupKeys;
use super::sealed::{SealedReader, SealedWriter};

/// A pack is closed once it holds so many bytes of plaintext: one file out of it takes
/// milliseconds, and a hundred thousand small files make a few hundred packs.
pub(super) const FULL: u64 = 4 << 20;
/// tar's unit.
const BLOCK: u64 = 512;
const SUFFIX: &str = ".tar.zst.age";

/// The file name of a pack.
pub(super) fn name_of(pack: &Digest) -> String {
    format!("{pack}{SUFFIX}")
}

/// The digest in a pack's file name.
pub(super) fn digest_of(name: &str) -> Option<Digest> {
    let mut digest = [0; 32];
    hex::decode_to_slice(name.strip_suffix(SUFFIX)?, &mut digest).ok()?;
    // One pack, one name: capital letters would be another.
    (name_of(&Digest(digest)) == name).then_some(Digest(digest))
}

/// A pack being written.
pub(super) struct PackWriter {
    temporary: String,
    to: SealedWriter,
    bytes: u64,
}

impl PackWriter {
    pub(super) fn create(packs: &Dir, temporary: &str, keys: &BackupKeys) -> Result<Self, BackupError> {
        packs.remove_file(temporary)?;
        let file = packs.create(temporary)?;
        let to = SealedWriter::new(file, &packs.path_of(temporary), keys)?;
        Ok(Self { temporary: temporary.to_owned(), to, bytes: 0 })
    }

    /// Takes a content whose length is known to be `size`.
    pub(super) fn begin(&mut self, digest: &Digest, size: u64) -> Result<(), BackupError> {
        let mut header = tar::Header::new_ustar();
        let failed = || BackupError::io("write", Path::new(&self.temporary));
        header.set_path(digest.to_string()).map_err(failed())?;
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o600);
        header.set_size(size);
        header.set_cksum();
        self.to.write_all(header.as_bytes()).map_err(failed())?;
        self.bytes += BLOCK + size.next_multiple_of(BLOCK);
        Ok(())
    }

    pub(super) fn write(&mut self, piece: &[u8]) -> Result<(), BackupError> {
        self.to.write_all(piece).map_err(BackupError::io("write", Path::new(&self.temporary)))
    }

    /// Fills up to tar's unit.
    pub(super) fn end(&mut self, size: u64) -> Result<(), BackupError> {
        let padding = usize::try_from(size.next_multiple_of(BLOCK) - size).unwrap_or(0);
        let zeros = [0; 512];
        self.write(zeros.get(..padding).unwrap_or_default())
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= FULL
    }

    /// Ends the pack and gives it its name.
    pub(super) fn finish(mut self, packs: &Dir) -> Result<Ciphertext, BackupError> {
        self.write(&[0; 1024])?;
        let done = self.to.finish()?;
        let name = name_of(&done.sha256);
        if let Err(e) = packs.rename(&self.temporary, &name) {
            // It may have its name, and not be known to keep it; no other backup has it.
            return packs.remove_file(&name).and(Err(e));
        }
        Ok(done)
    }
}

/// A pack being read.
pub(super) struct PackReader {
    from: SealedReader,
    /// What is left of the member that was announced last, padding included.
    left: u64,
    padding: u64,
}

impl PackReader {
    pub(super) fn open(packs: &Dir, pack: &Digest, keys: &BackupKeys) -> Result<Self, BackupError> {
        let name = name_of(pack);
        let from = SealedReader::new(packs.open(&name)?, &packs.path_of(&name), keys)?;
        Ok(Self { from, left: 0, padding: 0 })
    }

    /// Goes on to the next member: the digest that is its name, and its length. `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(Digest, u64)>, BackupError> {
        let skip = self.left + self.padding;
        self.skip(skip)?;
        (self.left, self.padding) = (0, 0);
        let mut block = [0; 512];
        self.from.read_exact(&mut block).map_err(BackupError::io("read", self.from.path()))?;
        if block == [0; 512] {
            self.from.read_exact(&mut block).map_err(BackupError::io("read", self.from.path()))?;
            return if block == [0; 512] { Ok(None) } else { Err(self.malformed("its end is no end")) };
        }
        let header = tar::Header::from_byte_slice(&block);
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, b)| if (148..156).contains(&at) { 32 } else { u32::from(*b) })
            .sum();
        if header.cksum().ok() != Some(sum) || header.entry_type() != tar::EntryType::Regular {
            return Err(self.malformed("a member's header is damaged"));
        }
        let size = header.entry_size().map_err(|_| self.malformed("a member has no length"))?;
        let mut digest = [0; 32];
        hex::decode_to_slice(&*header.path_bytes(), &mut digest)
            .map_err(|_| self.malformed("a member's name is no SHA-256"))?;
        self.left = size;
        self.padding = size.checked_next_multiple_of(BLOCK).map_or(0, |n| n - size);
        Ok(Some((Digest(digest), size)))
    }

    /// Reads the member that was announced last, compares it with its name, and hands it on.
    pub(super) fn content(&mut self, digest: &Digest, out: &mut dyn io::Write) -> Result<(), BackupError> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        while self.left > 0 {
            let room = usize::try_from(self.left).map_or(buffer.len(), |n| n.min(buffer.len()));
            let room = buffer.get_mut(..room).unwrap_or_default();
            let n = self.from.read(room).map_err(BackupError::io("read", self.from.path()))?;
            if n == 0 {
                return Err(self.malformed("it ends in the middle of a content"));
            }
            let piece = buffer.get(..n).unwrap_or_default();
            hash.update(piece);
            out.write_all(piece).map_err(BackupError::Sink)?;
            self.left -= n as u64;
        }
        let found = Digest(hash.finalize().into());
        if found == *digest { Ok(()) } else { Err(self.malformed("a content is not what its name says")) }
    }

    /// Reads to the end and compares the whole with what was signed.
    pub(super) fn finish(self, expected: &Ciphertext) -> Result<(), BackupError> {
        self.from.finish(expected)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), BackupError> {
        let skipped = io::copy(&mut (&mut self.from).take(bytes), &mut io::sink())
            .map_err(BackupError::io("read", self.from.path()))?;
        if skipped == bytes { Ok(()) } else { Err(self.malformed("it ends in the middle of a content")) }
    }

    fn malformed(&self, why: &str) -> BackupError {
        BackupError::content(self.from.path(), why)
    }
}

//! An encrypted file: zstd inside age, hashed as it lies on the disk.
//!
//! age says by itself whether what is decrypted is what was encrypted (every
//! 64 KiB are authenticated, and the end is), and anybody who knows the
//! recipient can encrypt to it: that it is *ours* is said by the SHA-256 of the
//! ciphertext in the signed manifest, which the file's name repeats.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use guard_model::Digest;
use guard_model::backup::Ciphertext;
use sha2::{Digest as _, Sha256};

use super::error::BackupError;
use super::keys::BackupKeys;
use crate::error::{Damage, StoreError};

/// Level 3 is zstd's own default: beyond it, time grows faster than space shrinks.
const LEVEL: i32 = 3;
/// zstd's largest window that we read, as a power of two: 8 MiB, more than level 3 makes. A hostile file
/// could ask for 2 GiB of memory otherwise.
const MAX_WINDOW_LOG: u32 = 23;
const BUFFER: usize = 128 * 1024;

/// Takes plaintext, compresses and encrypts it into a file.
pub(super) struct SealedWriter {
    path: PathBuf,
    to: zstd::Encoder<'static, age::stream::StreamWriter<Hashing>>,
}

/// Hashes and counts what is written to the file.
struct Hashing {
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hash.update(bytes.get(..n).unwrap_or_default());
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl SealedWriter {
    /// Begins a file that was just made at `path`.
    pub(super) fn new(file: File, path: &Path, keys: &BackupKeys) -> Result<Self, BackupError> {
        let hashing = Hashing { file: BufWriter::with_capacity(BUFFER, file), hash: Sha256::new(), bytes: 0 };
        let encrypted = keys.encryptor()?.wrap_output(hashing).map_err(BackupError::io("write", path))?;
        let mut to = zstd::Encoder::new(encrypted, LEVEL).map_err(BackupError::io("compress", path))?;
        to.include_checksum(true).map_err(BackupError::io("compress", path))?;
        Ok(Self { path: path.to_owned(), to })
    }

    /// Ends it; it is on the disk when this returns.
    pub(super) fn finish(self) -> Result<Ciphertext, BackupError> {
        let failed = || BackupError::io("write", &self.path);
        let encrypted = self.to.finish().map_err(failed())?;
        let Hashing { file, hash, bytes } = encrypted.finish().map_err(failed())?;
        let file = file.into_inner().map_err(|e| failed()(e.into_error()))?;
        file.sync_all().map_err(BackupError::io("fsync", &self.path))?;
        Ok(Ciphertext { sha256: Digest(hash.finalize().into()), bytes })
    }
}

impl Write for SealedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Gives the plaintext of an encrypted file.
pub(super) struct SealedReader {
    path: PathBuf,
    seen: Arc<Mutex<Seen>>,
    from: zstd::Decoder<'static, BufReader<age::stream::StreamReader<Checked>>>,
}

/// What was read of the ciphertext so far.
#[derive(Default)]
struct Seen {
    hash: Sha256,
    bytes: u64,
}

/// The ciphertext, hashed as it is read. age takes its reader and does not give it back, so
/// that what was seen is shared.
struct Checked {
    file: BufReader<File>,
    seen: Arc<Mutex<Seen>>,
}

impl Checked {
    fn note(&self, bytes: &[u8]) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.hash.update(bytes);
        seen.bytes += bytes.len() as u64;
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.note(buffer.get(..n).unwrap_or_default());
        Ok(n)
    }
}

impl BufRead for Checked {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.file.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.note(self.file.buffer().get(..n).unwrap_or_default());
        self.file.consume(n);
    }
}

impl SealedReader {
    /// Begins to read an encrypted file. What it gives is authenticated piece by piece; that the
    /// whole is what was signed is known once [`SealedReader::finish`] says so.
    pub(super) fn new(file: File, path: &Path, keys: &BackupKeys) -> Result<Self, BackupError> {
        let seen = Arc::default();
        let checked = Checked { file: BufReader::with_capacity(BUFFER, file), seen: Arc::clone(&seen) };
        let plain = age::Decryptor::new_buffered(checked)
            .and_then(|d| d.decrypt(std::iter::once(keys.identity() as &dyn age::Identity)))
            .map_err(|e| BackupError::Decrypt { path: path.to_owned(), source: e.into() })?;
        let mut from = zstd::Decoder::new(plain).map_err(BackupError::io("decompress", path))?;
        from.window_log_max(MAX_WINDOW_LOG).map_err(BackupError::io("decompress", path))?;
        Ok(Self { path: path.to_owned(), seen, from })
    }

    /// The file, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Compares what was read, to its end, with what was signed.
    pub(super) fn finish(mut self, expected: &Ciphertext) -> Result<(), BackupError> {
        let rest = io::copy(&mut self.from, &mut io::sink()).map_err(BackupError::io("read", &self.path))?;
        if rest > 0 {
            return Err(BackupError::content(&self.path, format!("{rest} bytes too many are in it")));
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = Digest(seen.hash.clone().finalize().into());
        if found != expected.sha256 {
            let why = Damage::Digest { expected: expected.sha256, found };
            return Err(StoreError::damaged(&self.path, why).into());
        }
        Ok(())
    }
}

impl Read for SealedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.from.read(buffer)
    }
}

/// Compares an encrypted file with what was signed, without decrypting it.
pub(super) fn check_ciphertext(
    file: &mut File,
    path: &Path,
    expected: &Ciphertext,
) -> Result<(), BackupError> {
    let length = file.metadata().map_err(BackupError::io("examine", path))?.len();
    if length < expected.bytes {
        return Err(StoreError::damaged(path, Damage::Short { at: expected.bytes }).into());
    }
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = file.read(&mut buffer).map_err(BackupError::io("read", path))?;
        if n == 0 {
            break;
        }
        hash.update(buffer.get(..n).unwrap_or_default());
    }
    let found = Digest(hash.finalize().into());
    if found == expected.sha256 {
        return Ok(());
    }
    Err(StoreError::damaged(path, Damage::Digest { expected: expected.sha256, found }).into())
}

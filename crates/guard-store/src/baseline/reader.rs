//! Reading a generation: verified whole when opened, block by block after that.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use guard_model::baseline::{BaselineRecord, Manifest};
use guard_model::{Digest, RelPath};
use sha2::{Digest as _, Sha256};

use super::codec::{self, Key, Malformed, key_of};
use super::table::{self, Block, FOOTER, Rows};
use super::{MANIFEST, RECORDS, SIGNATURE, SUMS, UNDO};
use crate::durable;
use crate::error::{Damage, StoreError};
use crate::keys::{NAMESPACE_BASELINE, PublicKey};

const MAX_MANIFEST: u64 = 4 * 1024 * 1024;
/// The table holds about one hundredth of the records: this is far beyond any tree.
const MAX_TABLE: u64 = 256 * 1024 * 1024;
/// Blocks kept in memory.
const CACHED: usize = 16;

/// A baseline that was verified. Safe to read from several threads.
#[derive(Debug)]
pub struct Baseline {
    dir: PathBuf,
    manifest: Manifest,
    digest: Digest,
    file: File,
    blocks: Vec<Block>,
    rows: u64,
    cache: Mutex<VecDeque<(usize, Arc<[u8]>)>>,
}

impl Baseline {
    /// Opens the generation in `dir`: its manifest must have the digest that the
    /// ledger or the lock file names, the host key's signature, and the digest
    /// of `records` must be the signed one.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::BadSignature`], [`StoreError::Io`].
    pub fn open(dir: &Path, expected: &Digest, key: &PublicKey) -> Result<Self, StoreError> {
        let opened = Self::open_signed(dir, key)?;
        if opened.digest != *expected {
            let why = Damage::Digest { expected: *expected, found: opened.digest };
            return Err(StoreError::damaged(&dir.join(MANIFEST), why));
        }
        Ok(opened)
    }

    /// Opens a generation by its signature alone, where nothing else is known of
    /// it: an older one put in its place would go unnoticed.
    ///
    /// # Errors
    /// As [`Baseline::open`].
    pub fn open_signed(dir: &Path, key: &PublicKey) -> Result<Self, StoreError> {
        let (manifest, digest) = read_manifest(dir, key)?;
        let records = dir.join(RECORDS);
        let file = durable::open_regular(&records)?;
        check_digest(&file, &records, manifest.digests.records)?;
        let (blocks, rows) = read_table(&file, &records)?;
        let cache = Mutex::new(VecDeque::new());
        Ok(Self { dir: dir.to_owned(), manifest, digest, file, blocks, rows, cache })
    }

    /// The signed manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of `manifest.json`.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Where it lies.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many records it holds.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.rows
    }

    /// True where it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The record of a path, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where the block that holds it was changed on disk.
    pub fn get(&self, path: &RelPath) -> Result<Option<BaselineRecord>, StoreError> {
        let wanted = key_of(path);
        let index = self.block_of(wanted);
        let Some(block) = self.blocks.get(index) else { return Ok(None) };
        let bytes = self.read_block(index, block)?;
        for row in Rows::new(&bytes) {
            let (key, body) = row.map_err(|e| self.malformed(block, e))?;
            if key == wanted {
                return codec::record(key, body).map(Some).map_err(|e| self.malformed(block, e));
            }
            if key > wanted {
                break;
            }
        }
        Ok(None)
    }

    /// The records of everything directly in a directory, ordered by name.
    ///
    /// # Errors
    /// As [`Baseline::get`].
    pub fn children(&self, dir: &RelPath) -> Result<Vec<BaselineRecord>, StoreError> {
        let wanted = dir.as_bytes();
        let mut found = Vec::new();
        for (index, block) in self.blocks.iter().enumerate().skip(self.block_of((wanted, b""))) {
            if block.first_key().0 > wanted {
                break;
            }
            let bytes = self.read_block(index, block)?;
            for row in Rows::new(&bytes) {
                let (key, body) = row.map_err(|e| self.malformed(block, e))?;
                // The root stands among its own children, under the empty name.
                if key.0 == wanted && !key.1.is_empty() {
                    let path = dir.join(key.1).map_err(|_| Malformed("a name that leaves its directory"));
                    let record = path.and_then(|path| codec::record_at(path, body));
                    found.push(record.map_err(|e| self.malformed(block, e))?);
                }
                if key.0 > wanted {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// Every record: the root, then by directory and name.
    pub fn iter(&self) -> Records<'_> {
        Records { baseline: self, next_block: 0, waiting: Vec::new().into_iter() }
    }

    /// Checks the open files, `SHA256SUMS` and `undo.jsonl`, which guardd itself
    /// does not read.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] names the first that is not as signed.
    pub fn verify_open_files(&self) -> Result<(), StoreError> {
        let digests = self.manifest.digests;
        for (name, expected) in [(SUMS, digests.sha256sums), (UNDO, digests.undo)] {
            let path = self.dir.join(name);
            check_digest(&durable::open_regular(&path)?, &path, expected)?;
        }
        Ok(())
    }

    /// The block in which a key would stand.
    fn block_of(&self, key: Key<'_>) -> usize {
        self.blocks.partition_point(|b| b.first_key() <= key).saturating_sub(1)
    }

    fn read_block(&self, index: usize, block: &Block) -> Result<Arc<[u8]>, StoreError> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = cache.iter().find(|(cached, _)| *cached == index) {
            return Ok(Arc::clone(bytes));
        }
        drop(cache);
        let path = self.dir.join(RECORDS);
        // The table was verified, so a block is never longer than the file was.
        let mut bytes = vec![0; usize::try_from(block.length).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, block.offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                StoreError::damaged(&path, Damage::Short { at: block.offset.saturating_add(block.length) })
            }
            _ => StoreError::io("read", &path)(e),
        })?;
        if Digest(Sha256::digest(&bytes).into()) != block.digest {
            return Err(StoreError::damaged(&path, Damage::Block { block: index, offset: block.offset }));
        }
        let bytes: Arc<[u8]> = bytes.into();
        cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHED {
            cache.pop_front();
        }
        cache.push_back((index, Arc::clone(&bytes)));
        Ok(bytes)
    }

    fn malformed(&self, block: &Block, e: Malformed) -> StoreError {
        let why = Damage::Format { what: e.0, at: block.offset };
        StoreError::damaged(&self.dir.join(RECORDS), why)
    }
}

impl<'a> IntoIterator for &'a Baseline {
    type Item = Result<BaselineRecord, StoreError>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.iter()
    }
}

/// Every record of a baseline in order. After an error it ends.
pub struct Records<'a> {
    baseline: &'a Baseline,
    next_block: usize,
    waiting: std::vec::IntoIter<BaselineRecord>,
}

impl Records<'_> {
    fn load(&mut self) -> Result<bool, StoreError> {
        let Some(block) = self.baseline.blocks.get(self.next_block) else { return Ok(false) };
        let bytes = self.baseline.read_block(self.next_block, block)?;
        let decode =
            |row: Result<(Key<'_>, &[u8]), Malformed>| row.and_then(|(key, body)| codec::record(key, body));
        let rows: Result<Vec<_>, _> = Rows::new(&bytes).map(decode).collect();
        self.waiting = rows.map_err(|e| self.baseline.malformed(block, e))?.into_iter();
        self.next_block += 1;
        Ok(true)
    }
}

impl Iterator for Records<'_> {
    type Item = Result<BaselineRecord, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.waiting.next() {
                return Some(Ok(record));
            }
            match self.load() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(e) => {
                    self.next_block = usize::MAX;
                    return Some(Err(e));
                }
            }
        }
    }
}

/// A generation's manifest, verified, and its SHA-256.
pub(super) fn read_manifest(dir: &Path, key: &PublicKey) -> Result<(Manifest, Digest), StoreError> {
    let path = dir.join(MANIFEST);
    let text = durable::read_small(&path, MAX_MANIFEST)?;
    let armour = durable::read_small(&dir.join(SIGNATURE), MAX_MANIFEST)?;
    key.verify(NAMESPACE_BASELINE, &text, &String::from_utf8_lossy(&armour))?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| {
        StoreError::damaged(&path, Damage::Line { line: e.line() as u64, why: e.to_string() })
    })?;
    if manifest.format != 1 {
        let why = Damage::Line { line: 1, why: format!("format {} is not known", manifest.format) };
        return Err(StoreError::damaged(&path, why));
    }
    Ok((manifest, Digest(Sha256::digest(&text).into())))
}

pub(super) fn check_digest(file: &File, path: &Path, expected: Digest) -> Result<(), StoreError> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 256 * 1024];
    let mut from = file;
    loop {
        let n = match from.read(&mut chunk) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other.map_err(StoreError::io("read", path))?,
        };
        if n == 0 {
            break;
        }
        hash.update(chunk.get(..n).unwrap_or_default());
    }
    let found = Digest(hash.finalize().into());
    if found == expected {
        Ok(())
    } else {
        Err(StoreError::damaged(path, Damage::Digest { expected, found }))
    }
}

fn read_table(file: &File, path: &Path) -> Result<(Vec<Block>, u64), StoreError> {
    let length = file.metadata().map_err(StoreError::io("examine", path))?.len();
    let malformed = |at: u64| move |e: Malformed| StoreError::damaged(path, Damage::Format { what: e.0, at });
    let short = || StoreError::damaged(path, Damage::Short { at: FOOTER });
    let footer_at = length.checked_sub(FOOTER).ok_or_else(short)?;
    let mut footer = vec![0; usize::try_from(FOOTER).unwrap_or(0)];
    file.read_exact_at(&mut footer, footer_at).map_err(StoreError::io("read", path))?;
    let (offset, size, rows) = table::footer(&footer).map_err(malformed(footer_at))?;
    if size > MAX_TABLE || offset.checked_add(size) != Some(footer_at) {
        return Err(malformed(footer_at)(Malformed("a table that does not fit")));
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    file.read_exact_at(&mut bytes, offset).map_err(StoreError::io("read", path))?;
    let blocks = table::table(&bytes, offset).map_err(malformed(offset))?;
    Ok((blocks, rows))
}

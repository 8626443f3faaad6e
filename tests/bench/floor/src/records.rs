//! What was recorded: for each directory the attributes of its children by name, then their digests.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::Failure;

/// Which directory, where its part begins, how long attributes and digests are.
type Part = (u64, u64, u32, u32);
const PART: usize = 24;

/// One directory's part.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) rows: Vec<u8>,
    pub(crate) digests: Vec<u8>,
}

pub(crate) fn key(directory: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    directory.hash(&mut hasher);
    hasher.finish()
}

/// Takes directories in any order.
pub(crate) struct Writer(Mutex<Written>);

struct Written {
    to: BufWriter<File>,
    offset: u64,
    parts: Vec<Part>,
}

impl Writer {
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let to = BufWriter::with_capacity(1 << 18, File::create(path)?);
        Ok(Self(Mutex::new(Written { to, offset: 0, parts: Vec::new() })))
    }

    pub(crate) fn add(&self, directory: &[u8], chunk: &Chunk) -> Result<(), Failure> {
        let mut to = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        to.to.write_all(&chunk.rows)?;
        to.to.write_all(&chunk.digests)?;
        let (rows, digests) = (u32::try_from(chunk.rows.len())?, u32::try_from(chunk.digests.len())?);
        let offset = to.offset;
        to.parts.push((key(directory), offset, rows, digests));
        to.offset += u64::from(rows) + u64::from(digests);
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<(), Failure> {
        let mut written = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (key, offset, rows, digests) in &written.parts {
            written.to.write_all(&key.to_le_bytes())?;
            written.to.write_all(&offset.to_le_bytes())?;
            written.to.write_all(&rows.to_le_bytes())?;
            written.to.write_all(&digests.to_le_bytes())?;
        }
        written.to.write_all(&(written.parts.len() as u64).to_le_bytes())?;
        Ok(written.to.flush()?)
    }
}

/// Gives back what was recorded of one directory.
pub(crate) struct Reader {
    file: File,
    parts: HashMap<u64, (u64, u32, u32)>,
}

impl Reader {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let file = File::open(path)?;
        let end = file.metadata()?.len().checked_sub(8).ok_or("no records")?;
        let mut count = [0; 8];
        file.read_exact_at(&mut count, end)?;
        let size = usize::try_from(u64::from_le_bytes(count))?.checked_mul(PART).ok_or("no records")?;
        let mut table = vec![0; size];
        file.read_exact_at(&mut table, end.checked_sub(size as u64).ok_or("no records")?)?;
        let part = |bytes: &[u8]| -> Result<_, Failure> {
            let (key, rest) = bytes.split_at(8);
            let (offset, rest) = rest.split_at(8);
            let (rows, digests) = rest.split_at(4);
            Ok((
                u64::from_le_bytes(key.try_into()?),
                (
                    u64::from_le_bytes(offset.try_into()?),
                    u32::from_le_bytes(rows.try_into()?),
                    u32::from_le_bytes(digests.try_into()?),
                ),
            ))
        };
        let parts = table.chunks_exact(PART).map(part).collect::<Result<_, _>>()?;
        Ok(Self { file, parts })
    }

    /// Into `chunk`, whose room is used again.
    pub(crate) fn read(&self, directory: &[u8], chunk: &mut Chunk) -> Result<(), Failure> {
        let (offset, rows, digests) = self.parts.get(&key(directory)).copied().unwrap_or_default();
        chunk.rows.resize(rows as usize, 0);
        chunk.digests.resize(digests as usize, 0);
        self.file.read_exact_at(&mut chunk.rows, offset)?;
        Ok(self.file.read_exact_at(&mut chunk.digests, offset + u64::from(rows))?)
    }
}

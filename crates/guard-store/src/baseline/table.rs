//! The layout of `records`: blocks of rows, a table of the blocks, a footer.
//!
//! A row in a block is `1` (the parent of the row before) or `0` and the parent,
//! then the name, then the body, each as length and bytes. The table gives for
//! each block its length, its rows, its SHA-256 and its first key.

use guard_model::Digest;
use sha2::{Digest as _, Sha256};

use super::codec::{Input, Key, Malformed, put_bytes, put_number};

/// What the file starts and ends with.
pub(super) const MAGIC: &[u8; 16] = b"guardd-records1\n";
/// Table's offset, table's length, number of rows (each little-endian u64), magic.
pub(super) const FOOTER: u64 = 8 * 3 + 16;
/// A block is closed once it holds this much.
const BLOCK: usize = 16 * 1024;
/// What a row starts with.
pub(super) const OTHER_PARENT: u8 = 0;
pub(super) const SAME_PARENT: u8 = 1;

type OwnedKey = (Box<[u8]>, Box<[u8]>);

/// One block, as the table knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) digest: Digest,
    pub(super) first: OwnedKey,
}

impl Block {
    pub(super) fn first_key(&self) -> Key<'_> {
        (&self.first.0, &self.first.1)
    }
}

/// The beginning of a row; `None` where the row before has the same parent.
pub(super) fn put_parent(out: &mut Vec<u8>, parent: Option<&[u8]>) {
    match parent {
        Some(parent) => {
            out.push(OTHER_PARENT);
            put_bytes(out, parent);
        }
        None => out.push(SAME_PARENT),
    }
}

/// Makes blocks out of rows that come in order.
#[derive(Default)]
pub(super) struct Layout {
    block: Vec<u8>,
    first: Option<OwnedKey>,
    parent: Vec<u8>,
    rows_in_block: u64,
    table: Vec<u8>,
    offset: u64,
    blocks: u64,
    rows: u64,
}

impl Layout {
    /// What stands before the first block.
    pub(super) fn begin(&mut self) -> &'static [u8] {
        self.offset = MAGIC.len() as u64;
        MAGIC
    }

    /// Takes a row; gives a block to write once one is full.
    pub(super) fn push(&mut self, (parent, name): Key<'_>, body: &[u8]) -> Option<Vec<u8>> {
        let same = self.first.is_some() && self.parent == parent;
        put_parent(&mut self.block, (!same).then_some(parent));
        if !same {
            parent.clone_into(&mut self.parent);
        }
        if self.first.is_none() {
            self.first = Some((parent.into(), name.into()));
        }
        put_bytes(&mut self.block, name);
        put_bytes(&mut self.block, body);
        self.rows_in_block += 1;
        self.rows += 1;
        (self.block.len() >= BLOCK).then(|| self.close()).flatten()
    }

    fn close(&mut self) -> Option<Vec<u8>> {
        let (parent, name) = self.first.take()?;
        let block = std::mem::take(&mut self.block);
        put_number(&mut self.table, block.len() as u64);
        put_number(&mut self.table, self.rows_in_block);
        self.table.extend_from_slice(&Sha256::digest(&block));
        put_bytes(&mut self.table, &parent);
        put_bytes(&mut self.table, &name);
        self.offset += block.len() as u64;
        self.blocks += 1;
        self.rows_in_block = 0;
        Some(block)
    }

    /// The last block, if there is one, then table and footer.
    pub(super) fn finish(mut self) -> (Option<Vec<u8>>, Vec<u8>) {
        let last = self.close();
        let mut end = Vec::new();
        put_number(&mut end, self.blocks);
        end.extend_from_slice(&self.table);
        let length = end.len() as u64;
        for n in [self.offset, length, self.rows] {
            end.extend_from_slice(&n.to_le_bytes());
        }
        end.extend_from_slice(MAGIC);
        (last, end)
    }
}

/// Reads the footer: the table's offset and length, and the number of rows.
pub(super) fn footer(bytes: &[u8]) -> Result<(u64, u64, u64), Malformed> {
    let mut input = Input(bytes);
    let mut next = || -> Result<u64, Malformed> {
        let bytes = input.take(8)?.try_into().map_err(|_| Malformed("the bytes end early"))?;
        Ok(u64::from_le_bytes(bytes))
    };
    let found = (next()?, next()?, next()?);
    if input.0 == MAGIC { Ok(found) } else { Err(Malformed("no guardd records file")) }
}

/// Reads the table; blocks must fill the file up to `end`.
pub(super) fn table(bytes: &[u8], end: u64) -> Result<Vec<Block>, Malformed> {
    let mut input = Input(bytes);
    let count = input.number()?;
    let mut blocks: Vec<Block> = Vec::new();
    let mut offset = MAGIC.len() as u64;
    for _ in 0..count {
        let length = input.number()?;
        let _rows = input.number()?;
        let digest = input.digest()?;
        let first = (input.bytes()?.into(), input.bytes()?.into());
        blocks.push(Block { offset, length, digest, first });
        offset = offset.checked_add(length).ok_or(Malformed("a length that is too large"))?;
    }
    if offset != end || !input.is_empty() {
        return Err(Malformed("blocks that do not fill the file"));
    }
    Ok(blocks)
}

/// The rows of one block.
pub(super) struct Rows<'a> {
    input: Input<'a>,
    parent: &'a [u8],
}

impl<'a> Rows<'a> {
    pub(super) fn new(block: &'a [u8]) -> Self {
        Self { input: Input(block), parent: b"" }
    }

    fn row(&mut self) -> Result<(Key<'a>, &'a [u8]), Malformed> {
        match self.input.byte()? {
            OTHER_PARENT => self.parent = self.input.bytes()?,
            SAME_PARENT => {}
            _ => return Err(Malformed("an unknown kind of row")),
        }
        Ok(((self.parent, self.input.bytes()?), self.input.bytes()?))
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Result<(Key<'a>, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.input.is_empty() {
            return None;
        }
        let row = self.row();
        if row.is_err() {
            self.input = Input(&[]);
        }
        Some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::{self, key_of, put_body};
    use super::*;
    use guard_model::baseline::BaselineRecord;
    use proptest::prelude::*;

    fn file(records: &[BaselineRecord]) -> Vec<u8> {
        let mut layout = Layout::default();
        let mut out = layout.begin().to_vec();
        for r in records {
            let mut body = Vec::new();
            put_body(&mut body, r);
            out.extend(layout.push(key_of(&r.path), &body).unwrap_or_default());
        }
        let (last, end) = layout.finish();
        out.extend(last.unwrap_or_default());
        out.extend(end);
        out
    }

    /// Everything of a file, as the reader does it but without the digests.
    fn read(file: &[u8]) -> Result<Vec<BaselineRecord>, Malformed> {
        let end = Malformed("short");
        let (rest, foot) = file.split_last_chunk::<{ FOOTER as usize }>().ok_or(end)?;
        let (offset, length, _) = footer(foot)?;
        let from = usize::try_from(offset).map_err(|_| end)?;
        let until = from.checked_add(usize::try_from(length).map_err(|_| end)?).ok_or(end)?;
        let mut found = Vec::new();
        for block in table(rest.get(from..until).ok_or(end)?, offset)? {
            let from = usize::try_from(block.offset).map_err(|_| end)?;
            let until = from.checked_add(usize::try_from(block.length).map_err(|_| end)?).ok_or(end)?;
            for row in Rows::new(rest.get(from..until).ok_or(end)?) {
                let (key, body) = row?;
                found.push(codec::record(key, body)?);
            }
        }
        Ok(found)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_laid_out_is_read(records in prop::collection::vec(codec::tests::records(), 0..60)) {
            prop_assert_eq!(read(&file(&records)), Ok(records));
        }

        #[test]
        fn changed_files_never_panic(
            records in prop::collection::vec(codec::tests::records(), 0..8),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = file(&records);
            for (at, to) in changes {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let _outcome = read(&bytes);
        }

        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            let _outcome = (footer(&bytes), table(&bytes, 100), Rows::new(&bytes).count());
        }
    }
}

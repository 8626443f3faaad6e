//! Which content lies in which pack. Built from the entries of the backups,
//! newest first, and only as far back as somebody has to look.

use std::collections::{BTreeSet, HashMap};

use guard_model::backup::Ciphertext;
use guard_model::{BackupId, Digest};

/// About 40 bytes for each content: some MiB for a hundred thousand.
#[derive(Debug, Default)]
pub(super) struct Held {
    packs: Vec<HeldPack>,
    numbers: HashMap<Digest, u32>,
    contents: HashMap<Digest, u32>,
    loaded: BTreeSet<BackupId>,
}

/// A pack that some backup lists.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldPack {
    pub(super) file: Ciphertext,
    /// Encrypted to everybody whom backups are encrypted to now.
    pub(super) shareable: bool,
}

impl Held {
    pub(super) fn is_loaded(&self, id: &BackupId) -> bool {
        self.loaded.contains(id)
    }

    pub(super) fn note_loaded(&mut self, id: BackupId) {
        self.loaded.insert(id);
    }

    /// The number of a pack here.
    pub(super) fn pack(&mut self, file: Ciphertext, shareable: bool) -> u32 {
        let packs = &mut self.packs;
        *self.numbers.entry(file.sha256).or_insert_with(|| {
            packs.push(HeldPack { file, shareable });
            u32::try_from(packs.len() - 1).unwrap_or(u32::MAX)
        })
    }

    /// Notes that a pack holds a content; one that can be shared is preferred.
    pub(super) fn note(&mut self, content: Digest, pack: u32) {
        let shareable = |n: u32| self.get(n).is_some_and(|p| p.shareable);
        match self.contents.get(&content) {
            Some(&held) if shareable(held) || !shareable(pack) => {}
            _ => {
                self.contents.insert(content, pack);
            }
        }
    }

    pub(super) fn find(&self, content: &Digest) -> Option<(u32, HeldPack)> {
        let number = *self.contents.get(content)?;
        Some((number, self.get(number)?))
    }

    fn get(&self, number: u32) -> Option<HeldPack> {
        self.packs.get(usize::try_from(number).ok()?).copied()
    }
}

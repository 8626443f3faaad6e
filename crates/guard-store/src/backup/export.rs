//! One backup as one file, to be kept elsewhere.

use std::fs::File;
use std::io::Write;

use super::dir::Dir;
use super::entries::ENTRIES;
use super::error::BackupError;
use super::reader::Backup;
use super::store::{Backups, Which};
use super::{MANIFEST, PACKS, SIGNATURE, pack};
use guard_model::BackupId;

impl Backups {
    /// Writes a tar archive of a backup's manifest, signature, entries and packs, all as they lie on
    /// the disk, encrypted. Nothing is decrypted; that it is whole is what verifying says.
    ///
    /// # Errors
    /// [`BackupError::Sink`] where `out` fails; otherwise as [`Backups::open_backup`].
    pub fn export(&self, id: &BackupId, out: &mut dyn Write) -> Result<(), BackupError> {
        let _reading = self.reading();
        let backup: Backup = self.open_backup(&Which::Id(id.clone()))?;
        let mut archive = tar::Builder::new(out);
        archive.mode(tar::HeaderMode::Deterministic);
        for name in [MANIFEST, SIGNATURE, ENTRIES] {
            append(&mut archive, backup.dir(), name, &format!("{id}/{name}"))?;
        }
        for file in &backup.manifest().packs {
            let name = pack::name_of(&file.sha256);
            append(&mut archive, &self.packs, &name, &format!("{PACKS}/{name}"))?;
        }
        archive.finish().map_err(BackupError::Sink)
    }
}

fn append(
    archive: &mut tar::Builder<&mut dyn Write>,
    dir: &Dir,
    name: &str,
    called: &str,
) -> Result<(), BackupError> {
    let file: File = dir.open(name)?;
    let size = file.metadata().map_err(BackupError::io("examine", &dir.path_of(name)))?.len();
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o600);
    header.set_size(size);
    archive.append_data(&mut header, called, std::io::Read::take(file, size)).map_err(BackupError::Sink)
}

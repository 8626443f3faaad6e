//! Whom backups are encrypted to: the host's own age identity, and the
//! recipient of the operator's recovery key, whose identity is not kept.

use age::secrecy::ExposeSecret as _;
use age::x25519::{Identity, Recipient};
use guard_model::Timestamp;
use std::io::{Read as _, Write as _};
use std::path::Path;

use super::error::BackupError;
use crate::durable;
use crate::error::StoreError;
use crate::state_dir::{StateDir, StatePaths};

/// The host's identity, in the format of `age-keygen`.
pub const HOST_IDENTITY: &str = "backup-identity";
/// The recipient of the operator's recovery key, in the format of a recipients file (`age -R`).
pub const RECOVERY_RECIPIENT: &str = "backup-recovery";

const MAX_KEY_BYTES: u64 = 16 * 1024;

/// The keys that backups are encrypted to and read with.
#[derive(Clone)]
pub struct BackupKeys {
    host: Identity,
    recovery: Option<Recipient>,
    created: bool,
}

impl std::fmt::Debug for BackupKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupKeys").field("recipients", &self.recipients()).finish_non_exhaustive()
    }
}

/// A recovery key that was just made. Its identity exists nowhere else.
pub struct RecoveryKey {
    identity: Identity,
    at: Timestamp,
}

impl RecoveryKey {
    /// The file to keep off the host, in the format of `age-keygen`.
    #[must_use]
    pub fn identity_file(&self) -> String {
        identity_file(&self.identity, self.at)
    }

    /// Its public half.
    #[must_use]
    pub fn recipient(&self) -> String {
        self.identity.to_public().to_string()
    }
}

impl BackupKeys {
    /// Loads the host's identity, or makes it, and the recovery recipient where there is one.
    ///
    /// # Errors
    /// [`BackupError::Key`] where a file holds no key: it is left alone, because what is encrypted
    /// to a lost key is lost. [`BackupError::Store`].
    pub fn load_or_create(state: &StateDir, at: Timestamp) -> Result<Self, BackupError> {
        let path = state.keys().join(HOST_IDENTITY);
        match durable::open_regular(&path) {
            Ok(file) => {
                let mode = rustix::fs::Mode::from_raw_mode(0o600);
                rustix::fs::fchmod(&file, mode).map_err(StoreError::sys("set the mode of", &path))?;
                Self::load(state)
            }
            Err(e) if e.is_not_found() => {
                let host = Identity::generate();
                let text = identity_file(&host, at);
                durable::replace(&state.keys(), HOST_IDENTITY, 0o600, text.as_bytes())?;
                Ok(Self { host, recovery: load_recovery(state)?, created: true })
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Loads both and makes nothing.
    ///
    /// # Errors
    /// As [`BackupKeys::load_or_create`].
    pub fn load(state: &StatePaths) -> Result<Self, BackupError> {
        let path = state.keys().join(HOST_IDENTITY);
        let host = read_identity(&path)?;
        Ok(Self { host, recovery: load_recovery(state)?, created: false })
    }

    /// Reads the identity of a recovery key from a file, to read backups without this host's.
    ///
    /// # Errors
    /// As [`BackupKeys::load_or_create`].
    pub fn from_identity_file(path: &Path) -> Result<Self, BackupError> {
        Ok(Self { host: read_identity(path)?, recovery: None, created: false })
    }

    /// True where the host's identity was missing and was made just now: what was encrypted to
    /// an earlier one cannot be read here any more.
    #[must_use]
    pub fn created(&self) -> bool {
        self.created
    }

    /// Makes a recovery key, proves it, and stores its recipient in the place of an earlier one's.
    /// The proof: what is encrypted to the stored recipient is decrypted by the identity as the
    /// operator gets to see it, read back from its text.
    ///
    /// # Errors
    /// [`BackupError::Key`] where the proof fails; then nothing was stored. [`BackupError::Store`].
    pub fn make_recovery_key(&mut self, state: &StateDir, at: Timestamp) -> Result<RecoveryKey, BackupError> {
        let made = RecoveryKey { identity: Identity::generate(), at };
        let path = state.keys().join(RECOVERY_RECIPIENT);
        let seen = parse_identity(&made.identity_file(), &path)?;
        let recipient = parse_recipient(&made.recipient(), &path)?;
        prove(&seen, &recipient, &path)?;
        let text = format!("# backups are encrypted to this recovery key since {at}\n{recipient}\n");
        durable::replace(&state.keys(), RECOVERY_RECIPIENT, 0o600, text.as_bytes())?;
        let kept = load_recovery(state)?.ok_or(BackupError::Key { path, why: "it vanished" })?;
        self.recovery = Some(kept);
        Ok(made)
    }

    /// The recovery key's recipient, where there is one.
    #[must_use]
    pub fn recovery(&self) -> Option<String> {
        self.recovery.as_ref().map(ToString::to_string)
    }

    /// Everybody whom backups are encrypted to, the host first.
    #[must_use]
    pub fn recipients(&self) -> Vec<String> {
        std::iter::once(self.host.to_public().to_string()).chain(self.recovery()).collect()
    }

    pub(super) fn encryptor(&self) -> Result<age::Encryptor, BackupError> {
        let host = self.host.to_public();
        let all = std::iter::once(&host).chain(&self.recovery).map(|r| r as &dyn age::Recipient);
        age::Encryptor::with_recipients(all).map_err(|e| BackupError::Encrypt(e.into()))
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.host
    }
}

fn identity_file(identity: &Identity, at: Timestamp) -> String {
    format!(
        "# created: {at}\n# public key: {}\n{}\n",
        identity.to_public(),
        identity.to_string().expose_secret()
    )
}

fn read_identity(path: &Path) -> Result<Identity, BackupError> {
    parse_identity(&read_text(path)?, path)
}

fn load_recovery(state: &StatePaths) -> Result<Option<Recipient>, BackupError> {
    let path = state.keys().join(RECOVERY_RECIPIENT);
    match read_text(&path) {
        Ok(text) => parse_recipient(&text, &path).map(Some),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

fn read_text(path: &Path) -> Result<String, BackupError> {
    let bytes = durable::read_small(path, MAX_KEY_BYTES)?;
    String::from_utf8(bytes).map_err(|_| BackupError::Key { path: path.to_owned(), why: "it is not UTF-8" })
}

fn parse_identity(text: &str, path: &Path) -> Result<Identity, BackupError> {
    the_line(text, path)?.parse().map_err(|why| BackupError::Key { path: path.to_owned(), why })
}

fn parse_recipient(text: &str, path: &Path) -> Result<Recipient, BackupError> {
    the_line(text, path)?.parse().map_err(|why| BackupError::Key { path: path.to_owned(), why })
}

/// The one line that is no comment.
fn the_line<'a>(text: &'a str, path: &Path) -> Result<&'a str, BackupError> {
    let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    match (lines.next(), lines.next()) {
        (Some(line), None) => Ok(line),
        (None, _) => Err(BackupError::Key { path: path.to_owned(), why: "it has no key in it" }),
        (Some(_), Some(_)) => {
            Err(BackupError::Key { path: path.to_owned(), why: "it has more than one key in it" })
        }
    }
}

fn prove(identity: &Identity, recipient: &Recipient, path: &Path) -> Result<(), BackupError> {
    let failed =
        || BackupError::Key { path: path.to_owned(), why: "it does not decrypt what is encrypted to it" };
    let mut challenge = [0; 32];
    rustix::rand::getrandom(&mut challenge, rustix::rand::GetRandomFlags::empty())
        .map_err(StoreError::sys("get randomness for", path))?;
    let to = std::iter::once(recipient as &dyn age::Recipient);
    let mut sealed = Vec::new();
    let mut out = age::Encryptor::with_recipients(to)
        .map_err(|e| BackupError::Encrypt(e.into()))?
        .wrap_output(&mut sealed)
        .map_err(|_| failed())?;
    out.write_all(&challenge).and_then(|()| out.finish().map(|_| ())).map_err(|_| failed())?;
    let decryptor = age::Decryptor::new_buffered(sealed.as_slice()).map_err(|_| failed())?;
    let mut answer = Vec::new();
    decryptor
        .decrypt(std::iter::once(identity as &dyn age::Identity))
        .map_err(|_| failed())?
        .read_to_end(&mut answer)
        .map_err(|_| failed())?;
    if answer == challenge { Ok(()) } else { Err(failed()) }
}

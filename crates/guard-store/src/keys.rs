//! The host key: what signs manifests, lock files and ledger checkpoints, in
//! OpenSSH's formats so that `ssh-keygen -Y verify` needs nothing of ours.
//!
//! `keys/host` is an OpenSSH private key without passphrase (0600, Ed25519);
//! `public/host.pub` and `public/allowed_signers` are for everybody.

use std::path::Path;
use std::sync::Arc;

use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{HashAlg, LineEnding, SshSig};

use crate::durable;
use crate::error::{Damage, StoreError};
use crate::state_dir::{StateDir, StatePaths};

/// Namespace of the signature in a lock file.
pub const NAMESPACE_LOCK: &str = "guardd-lock";
/// Namespace of the signature over a `manifest.json`.
pub const NAMESPACE_BASELINE: &str = "guardd-baseline";
/// Namespace of the signature in a ledger checkpoint.
pub const NAMESPACE_LEDGER: &str = "guardd-ledger";
/// Namespace of the signature over a backup's `manifest.json`.
pub const NAMESPACE_BACKUP: &str = "guardd-backup";
/// The signer's name in `allowed_signers` (`ssh-keygen -I`).
pub const PRINCIPAL: &str = "guardd";

const SIGNERS: &str = "allowed_signers";
/// What the host key signs, as `allowed_signers` says it.
const NAMESPACES: [&str; 4] = [NAMESPACE_LOCK, NAMESPACE_BASELINE, NAMESPACE_LEDGER, NAMESPACE_BACKUP];
/// What it signed before there were backups: a file that says so is no drift.
const EARLIER_NAMESPACES: [&str; 3] = [NAMESPACE_LOCK, NAMESPACE_BASELINE, NAMESPACE_LEDGER];

const MAX_KEY_BYTES: u64 = 16 * 1024;

/// Where the host key came from, which the daemon tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOrigin {
    /// Nothing was there: the first start.
    Created,
    /// The private key was gone though a public one or a ledger was there. A new key was
    /// made; what the old one signed no longer verifies.
    Replaced {
        /// Fingerprint of the lost key, or why it could not be read.
        lost: String,
    },
    /// As it was left.
    Loaded,
    /// The private key was there; files in `public/` were missing or altered and were put right.
    PublicRepaired {
        /// Names of the files.
        files: Vec<&'static str>,
    },
}

/// The host's private key.
#[derive(Clone)]
pub struct HostKey {
    key: Arc<ssh_key::PrivateKey>,
    origin: KeyOrigin,
}

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostKey").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

impl HostKey {
    /// Loads `keys/host`, or makes it, and keeps `public/` in step with it.
    ///
    /// # Errors
    /// [`StoreError::Key`] where the file is no key: it is left alone, because a
    /// new key would orphan every signature made so far. [`StoreError::Io`].
    pub fn load_or_create(state: &StateDir) -> Result<Self, StoreError> {
        let path = state.keys().join("host");
        let (key, mut origin) = match durable::open_regular(&path) {
            Ok(file) => {
                let mode = rustix::fs::Mode::from_raw_mode(0o600);
                rustix::fs::fchmod(&file, mode).map_err(StoreError::sys("set the mode of", &path))?;
                let text = durable::read_opened(&file, &path, MAX_KEY_BYTES)?;
                (parse_private(&text, &path)?, KeyOrigin::Loaded)
            }
            Err(e) if e.is_not_found() => {
                let origin = match PublicKey::load(state) {
                    Ok(lost) => KeyOrigin::Replaced { lost: lost.fingerprint() },
                    Err(e) if e.is_not_found() && !has_signed(state)? => KeyOrigin::Created,
                    Err(e) => KeyOrigin::Replaced { lost: e.to_string() },
                };
                (create_private(state)?, origin)
            }
            Err(e) => return Err(e),
        };
        let host = Self { key: Arc::new(key), origin: KeyOrigin::Loaded };
        let signers = durable::read_small(&state.public().join(SIGNERS), MAX_KEY_BYTES).ok();
        let was_earlier_form = signers == Some(host.signers(&EARLIER_NAMESPACES).into_bytes());
        let mut drifted = host.public_drift(state);
        for &name in &drifted {
            durable::replace(&state.public(), name, 0o644, host.public_file(name).as_bytes())?;
        }
        if was_earlier_form {
            drifted.retain(|name| *name != SIGNERS);
        }
        if origin == KeyOrigin::Loaded && !drifted.is_empty() {
            origin = KeyOrigin::PublicRepaired { files: drifted };
        }
        Ok(Self { origin, ..host })
    }

    /// Where this key came from when it was loaded.
    #[must_use]
    pub fn origin(&self) -> &KeyOrigin {
        &self.origin
    }

    /// The files in `public/` that are not what belongs to this key.
    #[must_use]
    pub fn public_drift(&self, state: &StatePaths) -> Vec<&'static str> {
        let differs = |name: &&str| {
            durable::read_small(&state.public().join(name), MAX_KEY_BYTES).ok()
                != Some(self.public_file(name).into_bytes())
        };
        ["host.pub", SIGNERS].into_iter().filter(differs).collect()
    }

    fn public_file(&self, name: &str) -> String {
        let public = self.public_openssh();
        if name == "host.pub" {
            return format!("{public}\n");
        }
        self.signers(&NAMESPACES)
    }

    fn signers(&self, namespaces: &[&str]) -> String {
        let public = self.public_openssh();
        let bare = public.strip_suffix(" guardd").unwrap_or(&public);
        format!("{PRINCIPAL} namespaces=\"{}\" {bare}\n", namespaces.join(","))
    }

    /// Signs `bytes`: the SSHSIG armour that `ssh-keygen -Y sign -n NAMESPACE` writes.
    ///
    /// # Errors
    /// [`StoreError::Sign`].
    pub fn sign(&self, namespace: &str, bytes: &[u8]) -> Result<String, StoreError> {
        let failed = |source| StoreError::Sign { what: "a signature", source };
        let signature = self.key.sign(namespace, HashAlg::Sha512, bytes).map_err(failed)?;
        signature.to_pem(LineEnding::LF).map_err(failed)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey { key: self.key.public_key().clone() }
    }

    /// The public half as one line of OpenSSH's format, without newline.
    #[must_use]
    pub fn public_openssh(&self) -> String {
        self.public().to_openssh()
    }

    /// `SHA256:…`, as `ssh-keygen -l` shows it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.public().fingerprint()
    }
}

/// Was a host key here that signed things?
fn has_signed(state: &StatePaths) -> Result<bool, StoreError> {
    let dir = state.ledger();
    let mut entries = std::fs::read_dir(&dir).map_err(StoreError::io("list", &dir))?;
    Ok(entries.next().is_some())
}

fn parse_private(text: &[u8], path: &Path) -> Result<ssh_key::PrivateKey, StoreError> {
    let failed = |source| StoreError::Key { path: path.to_owned(), source };
    let key = ssh_key::PrivateKey::from_openssh(text).map_err(failed)?;
    if key.algorithm() != ssh_key::Algorithm::Ed25519 {
        return Err(failed(ssh_key::Error::AlgorithmUnknown));
    }
    // A key whose halves do not belong together signs what nobody can verify.
    let probe = key.sign("guardd-self-test", HashAlg::Sha512, b"").map_err(failed)?;
    key.public_key().verify("guardd-self-test", b"", &probe).map_err(failed)?;
    Ok(key)
}

fn create_private(state: &StateDir) -> Result<ssh_key::PrivateKey, StoreError> {
    let path = state.keys().join("host");
    let mut seed = [0; 32];
    let mut filled = 0;
    while let Some(rest) = seed.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())
            .map_err(StoreError::sys("get randomness for", &path))?;
    }
    let failed = |source| StoreError::Sign { what: "a new key", source };
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed));
    let key = ssh_key::PrivateKey::new(pair, "guardd").map_err(failed)?;
    let text = key.to_openssh(LineEnding::LF).map_err(failed)?;
    durable::replace(&state.keys(), "host", 0o600, text.as_bytes())?;
    Ok(key)
}

/// The host's public key, all that verification needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    key: ssh_key::PublicKey,
}

impl PublicKey {
    /// Reads `public/host.pub` of a state directory.
    ///
    /// # Errors
    /// [`StoreError::Key`], [`StoreError::Io`].
    pub fn load(state: &StatePaths) -> Result<Self, StoreError> {
        Self::load_file(&state.public().join("host.pub"))
    }

    /// Reads a public key file in OpenSSH's format.
    ///
    /// # Errors
    /// [`StoreError::Key`], [`StoreError::Io`].
    pub fn load_file(path: &Path) -> Result<Self, StoreError> {
        let bytes = durable::read_small(path, MAX_KEY_BYTES)?;
        let Ok(text) = String::from_utf8(bytes) else {
            return Err(StoreError::damaged(path, Damage::Format { what: "text that is not UTF-8", at: 0 }));
        };
        Self::from_openssh(&text).map_err(|source| StoreError::Key { path: path.to_owned(), source })
    }

    /// Reads one line of OpenSSH's format.
    ///
    /// # Errors
    /// Where the text is no Ed25519 key.
    pub fn from_openssh(text: &str) -> Result<Self, ssh_key::Error> {
        let key = ssh_key::PublicKey::from_openssh(text.trim_end())?;
        if key.algorithm() != ssh_key::Algorithm::Ed25519 {
            return Err(ssh_key::Error::AlgorithmUnknown);
        }
        Ok(Self { key })
    }

    /// Verifies an SSHSIG armour over `bytes`; `what` names them in the error.
    ///
    /// # Errors
    /// [`StoreError::BadSignature`].
    pub fn verify(&self, namespace: &str, bytes: &[u8], armour: &str) -> Result<(), StoreError> {
        let checked = SshSig::from_pem(armour).and_then(|s| self.key.verify(namespace, bytes, &s));
        checked.map_err(|source| StoreError::BadSignature {
            what: namespace.to_owned(),
            fingerprint: self.fingerprint(),
            source,
        })
    }

    /// One line of OpenSSH's format, without newline.
    #[must_use]
    pub fn to_openssh(&self) -> String {
        // An Ed25519 key that was parsed or made here always has a text form.
        self.key.to_openssh().unwrap_or_default()
    }

    /// `SHA256:…`, as `ssh-keygen -l` shows it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(HashAlg::Sha256).to_string()
    }
}

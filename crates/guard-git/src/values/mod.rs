//! The values of sensitive files, looked for in lines of text.
//!
//! The daemon, which may read such files, makes [`Known`] of them; whoever
//! commits sends it his lines, and is told which line holds the value of which
//! key. Architecture invariant: nothing here holds, returns or formats a value.
//! What is kept of one is a digest under a key that is made for the one
//! comparison and leaves this module as little as the digests do.

mod extract;
mod lines;
mod strength;

pub(crate) use lines::Comparison;
pub use lines::{Compare, Found, Match, PART};

use std::collections::{HashMap, HashSet};

use guard_model::path::escape;
use sha2::{Digest, Sha256};

use strength::Strength;

/// No value shorter than this is looked for: it would be found by chance, and guessed by asking.
pub const SHORTEST: usize = 8;
/// Of a longer value its beginning is looked for.
const LONGEST: usize = 256;
/// Values of one file.
const MOST_VALUES: usize = 4096;
/// Bits of the filter that rules most places of a text out.
const FILTER_BITS: u32 = 16;

/// Digests of all values that are looked for.
pub struct Known {
    key: [u8; 32],
    filter: Vec<u64>,
    by_beginning: HashMap<u64, Vec<Entry>>,
    names: Vec<Name>,
    seen: HashSet<[u8; 32]>,
    values: u64,
    left_out: u64,
}

/// Whose value was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The sensitive file, escaped, relative to the environment's root.
    pub file: String,
    /// The key in it, escaped; empty where the file is one value.
    pub key: String,
}

struct Entry {
    length: usize,
    digest: [u8; 32],
    strength: Strength,
    name: usize,
}

impl Known {
    /// Nothing yet, and a key of its own.
    ///
    /// # Errors
    /// What getrandom(2) says.
    pub fn with_fresh_key() -> std::io::Result<Self> {
        let mut key = [0; 32];
        let mut filled = 0;
        while let Some(rest) = key.get_mut(filled..).filter(|r| !r.is_empty()) {
            filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(Self::new(key))
    }

    fn new(key: [u8; 32]) -> Self {
        Self {
            key,
            filter: vec![0; (1 << FILTER_BITS) / 64],
            by_beginning: HashMap::new(),
            names: Vec::new(),
            seen: HashSet::new(),
            values: 0,
            left_out: 0,
        }
    }

    /// Takes in the values of a file. False where it is not text, so that it could not be read for values.
    pub fn add(&mut self, file: &str, content: &[u8]) -> bool {
        if crate::secrets::is_binary(content) {
            return false;
        }
        for value in extract::values(file, content).into_iter().take(MOST_VALUES) {
            match strength::of(&value.key, &value.text) {
                Some(strength) => self.insert(file, &value.key, &value.text, strength),
                None if value.text.is_empty() || !strength::names_a_secret(&value.key) => {}
                None => self.left_out += u64::from(self.seen.insert(self.digest(&value.text))),
            }
        }
        true
    }

    fn insert(&mut self, file: &str, key: &str, text: &[u8], strength: Strength) {
        let text = text.get(..LONGEST).unwrap_or(text);
        if !self.seen.insert(self.digest(text)) {
            return;
        }
        self.values += 1;
        let name = self.names.len();
        self.names.push(Name { file: file.to_owned(), key: escape(key.as_bytes()) });
        for form in std::iter::once(text.to_vec()).chain(extract::other_forms(text)) {
            let Some(beginning) = beginning(&form) else { continue };
            let slot = self.slot(beginning);
            if let Some(word) = self.filter.get_mut(slot / 64) {
                *word |= 1 << (slot % 64);
            }
            let entry = Entry { length: form.len(), digest: self.digest(&form), strength, name };
            self.by_beginning.entry(self.short(beginning)).or_default().push(entry);
        }
    }

    /// How many values are looked for.
    #[must_use]
    pub fn values(&self) -> u64 {
        self.values
    }

    /// How many values of keys that name a secret are too short or too ordinary to be looked for.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// What a line holds: where (bytes from 0), and whose value. Each value once.
    #[must_use]
    pub fn search(&self, line: &[u8]) -> Vec<(usize, &Name)> {
        let mut found: Vec<(usize, &Name)> = Vec::new();
        for at in 0..line.len().saturating_sub(SHORTEST - 1) {
            let rest = line.get(at..).unwrap_or_default();
            let Some(beginning) = beginning(rest) else { break };
            let slot = self.slot(beginning);
            if self.filter.get(slot / 64).is_none_or(|word| word >> (slot % 64) & 1 == 0) {
                continue;
            }
            for entry in self.by_beginning.get(&self.short(beginning)).into_iter().flatten() {
                let Some(text) = rest.get(..entry.length) else { continue };
                if entry.strength == Strength::Fair && !stands_alone(line, at, entry.length)
                    || self.digest(text) != entry.digest
                {
                    continue;
                }
                if let Some(name) = self.names.get(entry.name)
                    && found.iter().all(|(_, known)| *known != name)
                {
                    found.push((at, name));
                }
            }
        }
        found
    }

    /// SHA-256 over key and text. The key has a fixed length and no digest is ever given away, so
    /// that nothing is to be had from the hash's being extensible.
    fn digest(&self, text: &[u8]) -> [u8; 32] {
        Sha256::new_with_prefix(self.key).chain_update(text).finalize().into()
    }

    fn short(&self, beginning: [u8; SHORTEST]) -> u64 {
        let digest = self.digest(&beginning);
        digest.iter().take(8).fold(0, |all, &b| all << 8 | u64::from(b))
    }

    /// Multiply-shift hashing by an odd number out of the key: cheap enough for every byte of a text.
    fn slot(&self, beginning: [u8; SHORTEST]) -> usize {
        let factor = self.key.iter().take(8).fold(1, |all: u64, &b| all << 8 | u64::from(b)) | 1;
        let hash = u64::from_le_bytes(beginning).wrapping_mul(factor);
        usize::try_from(hash >> (64 - FILTER_BITS)).unwrap_or_default()
    }
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").field("values", &self.values).finish_non_exhaustive()
    }
}

fn beginning(text: &[u8]) -> Option<[u8; SHORTEST]> {
    text.first_chunk().copied()
}

/// Neither letter nor digit on either side.
fn stands_alone(line: &[u8], at: usize, length: usize) -> bool {
    let word = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    !word(at.checked_sub(1).and_then(|i| line.get(i))) && !word(line.get(at + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRONG: &str = "q7Xv-Lk29_TzPw4sRb8N";

    fn known(files: &[(&str, &str)]) -> Known {
        let mut known = Known::new([7; 32]);
        for (file, content) in files {
            assert!(known.add(file, content.as_bytes()));
        }
        known
    }

    fn keys(known: &Known, line: &str) -> Vec<String> {
        known.search(line.as_bytes()).into_iter().map(|(_, n)| n.key.clone()).collect()
    }

    #[test]
    fn a_value_is_found_wherever_it_stands() {
        let k = known(&[(".env", &format!("A=1\nSECRET_KEY={STRONG}\nDB_PASSWORD='hunter2hunter2'\n"))]);
        assert_eq!(k.values(), 2);
        for line in [
            STRONG.to_owned(),
            format!("SECRET_KEY = \"{STRONG}\""),
            format!("x{STRONG}y"),
            format!("https://a/?k={STRONG}&b=1"),
        ] {
            assert_eq!(keys(&k, &line), ["SECRET_KEY"], "{line}");
        }
        let found = k.search(b"  pw: hunter2hunter2");
        assert_eq!((found[0].0, found[0].1.file.as_str()), (6, ".env"));
        assert_eq!(keys(&k, &format!("{STRONG} hunter2hunter2 {STRONG}")), ["SECRET_KEY", "DB_PASSWORD"]);
    }

    #[test]
    fn a_short_one_has_to_stand_alone() {
        let k = known(&[(".env", "DB_PASSWORD=hunter2hunter2\n")]);
        assert_eq!(keys(&k, "mysql://app:hunter2hunter2@db"), ["DB_PASSWORD"]);
        assert!(keys(&k, "xhunter2hunter2").is_empty() && keys(&k, "hunter2hunter23").is_empty());
    }

    #[test]
    fn other_forms_of_it_are_found() {
        let k = known(&[(".env", "SECRET_KEY=a+b/c&d=e5!XyZqw7=\n")]);
        assert_eq!(keys(&k, "?key=a%2Bb%2Fc%26d%3De5%21XyZqw7%3D"), ["SECRET_KEY"]);
        // base64 of the value, as Kubernetes writes it, with and without a newline at its end.
        for line in ["key: YStiL2MmZD1lNSFYeVpxdzc9", "key: YStiL2MmZD1lNSFYeVpxdzc9Cg=="] {
            assert_eq!(keys(&k, line), ["SECRET_KEY"]);
        }
    }

    #[test]
    fn nothing_is_found_by_chance() {
        let k = known(&[(
            ".env",
            "DEBUG=true\nMODE=production\nPASSWORD=changeme\nSECRET_KEY=short\nDB_HOST=db.example.org\nAPI_KEY=aaaaaaaaaaaa\nTOKEN_FILE=/run/secrets/token1\n",
        )]);
        assert_eq!((k.values(), k.left_out()), (0, 3));
        assert!(
            keys(&k, "true production changeme short db.example.org aaaaaaaaaaaa /run/secrets/token1")
                .is_empty()
        );
    }

    #[test]
    fn nothing_of_a_value_is_kept_or_shown() {
        let k = known(&[(".env", &format!("SECRET_KEY={STRONG}\n"))]);
        assert!(!format!("{k:?}").contains("q7Xv"));
        assert!(k.names.iter().all(|n| !n.key.contains("q7Xv") && !n.file.contains("q7Xv")));
        assert!(!Known::new([7; 32]).add("a", b"\0KEY=x"));
    }

    #[test]
    fn a_long_one_is_found_by_its_beginning() {
        let long = STRONG.repeat(50);
        let k = known(&[("token", &format!("{long}\n"))]);
        assert_eq!(k.search(format!("x {long}").as_bytes()).len(), 1);
        assert_eq!(k.search(long.get(..100).unwrap().as_bytes()).len(), 0);
    }
}

//! The compact form of a baseline record.
//!
//! A row is a key (parent directory, name) and a body (everything else).
//! Integers are LEB128, signed ones zigzagged first; byte strings are a length
//! and the bytes. Whatever bytes come in, decoding ends in a record or in a
//! [`Malformed`], and never allocates more than there is input.

use guard_model::baseline::{BaselineRecord, Role};
use guard_model::seal::Skip;
use guard_model::{Digest, Entry, Kind, RelPath, Seal, Stamp};

/// What is wrong with encoded bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

type Decoded<T> = Result<T, Malformed>;

/// Where a record stands in the order of `records`: all children of a directory together.
pub(super) type Key<'a> = (&'a [u8], &'a [u8]);

/// The key of a path; the root stands first of all.
pub(super) fn key_of(path: &RelPath) -> Key<'_> {
    let bytes = path.as_bytes();
    let name = path.name();
    let parent = bytes.len().saturating_sub(name.len() + 1);
    (bytes.get(..parent).unwrap_or_default(), name)
}

/// The path of a key.
pub(super) fn path_of((parent, name): Key<'_>) -> Decoded<RelPath> {
    let bad = Malformed("a path that leaves the root");
    if name.is_empty() {
        return if parent.is_empty() { Ok(RelPath::root()) } else { Err(bad) };
    }
    RelPath::from_bytes(parent).ok().and_then(|p| p.join(name).ok()).ok_or(bad)
}

pub(super) fn put_number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_signed(out: &mut Vec<u8>, n: i64) {
    put_number(out, ((n << 1) ^ (n >> 63)).cast_unsigned());
}

/// Bytes being decoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> Decoded<u8> {
        let (&first, rest) = self.0.split_first().ok_or(Malformed("the bytes end early"))?;
        self.0 = rest;
        Ok(first)
    }

    pub(super) fn take(&mut self, count: usize) -> Decoded<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Malformed("the bytes end early"))?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn number(&mut self) -> Decoded<u64> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(Malformed("a number that is too large"))
    }

    fn number32(&mut self) -> Decoded<u32> {
        u32::try_from(self.number()?).map_err(|_| Malformed("a number that is too large"))
    }

    fn signed(&mut self) -> Decoded<i64> {
        let n = self.number()?;
        Ok((n >> 1).cast_signed() ^ -(n & 1).cast_signed())
    }

    pub(super) fn bytes(&mut self) -> Decoded<&'a [u8]> {
        let count = usize::try_from(self.number()?).map_err(|_| Malformed("a length that is too large"))?;
        self.take(count)
    }

    fn stamp(&mut self) -> Decoded<Stamp> {
        Ok(Stamp { sec: self.signed()?, nsec: self.number32()? })
    }

    pub(super) fn digest(&mut self) -> Decoded<Digest> {
        let bytes = self.take(32)?.try_into().map_err(|_| Malformed("the bytes end early"))?;
        Ok(Digest(bytes))
    }
}

const KINDS: [Kind; 7] = [
    Kind::File,
    Kind::Directory,
    Kind::Symlink,
    Kind::Fifo,
    Kind::Socket,
    Kind::CharDevice,
    Kind::BlockDevice,
];
const ROLES: [Role; 4] = [Role::Protected, Role::Sensitive, Role::WritableTop, Role::Passage];
const SKIPS: [Skip; 7] = [
    Skip::Symlink,
    Skip::Special,
    Skip::HardLinkOutside,
    Skip::HoldsWritable,
    Skip::NotPermitted,
    Skip::NoFlag,
    Skip::FlagNotPermitted,
];

const SEALED: u8 = 1;
const HAS_SKIP: u8 = 2;
const HAS_TARGET: u8 = 4;
const HAS_XATTRS: u8 = 8;
const HAS_SHA256: u8 = 16;
const HAS_RDEV: u8 = 32;
const HAS_FLAGS: u8 = 64;
/// Beside [`SEALED`]: with the immutable flag, too.
const IMMUTABLE: u8 = 128;

fn index_in<T: PartialEq>(list: &[T], item: &T) -> u8 {
    list.iter().position(|x| x == item).map_or(u8::MAX, |i| u8::try_from(i).unwrap_or(u8::MAX))
}

fn item_of<T: Copy>(list: &[T], index: u8, what: &'static str) -> Decoded<T> {
    list.get(usize::from(index)).copied().ok_or(Malformed(what))
}

/// Everything of a record but its path.
pub(super) fn put_body(out: &mut Vec<u8>, record: &BaselineRecord) {
    let e = &record.entry;
    let mut has = 0;
    let mut note = |condition: bool, bit: u8| has |= if condition { bit } else { 0 };
    note(record.sealed.is_some(), SEALED);
    note(record.sealed == Seal::Immutable, IMMUTABLE);
    note(record.skip.is_some(), HAS_SKIP);
    note(e.target.is_some(), HAS_TARGET);
    note(!e.xattrs.is_empty(), HAS_XATTRS);
    note(e.sha256.is_some(), HAS_SHA256);
    note(e.rdev != 0, HAS_RDEV);
    note(e.flags != 0, HAS_FLAGS);
    out.push(has);
    out.push(index_in(&KINDS, &e.kind) | index_in(&ROLES, &record.role) << 4);
    if let Some(skip) = record.skip {
        out.push(index_in(&SKIPS, &skip));
    }
    for n in [u64::from(e.mode), e.uid.into(), e.gid.into(), e.size] {
        put_number(out, n);
    }
    for stamp in [e.mtime, e.ctime] {
        put_signed(out, stamp.sec);
        put_number(out, stamp.nsec.into());
    }
    for n in [e.dev, e.ino, e.nlink.into()] {
        put_number(out, n);
    }
    if e.rdev != 0 {
        put_number(out, e.rdev);
    }
    if e.flags != 0 {
        put_number(out, e.flags.into());
    }
    if let Some(target) = &e.target {
        put_bytes(out, target);
    }
    if !e.xattrs.is_empty() {
        put_number(out, e.xattrs.len() as u64);
        for (name, value) in &e.xattrs {
            put_bytes(out, name);
            put_bytes(out, value);
        }
    }
    if let Some(digest) = e.sha256 {
        out.extend_from_slice(&digest.0);
    }
}

/// The inverse of [`put_body`]; `body` must hold nothing else.
pub(super) fn record(key: Key<'_>, body: &[u8]) -> Decoded<BaselineRecord> {
    record_at(path_of(key)?, body)
}

/// The same for a path that is known.
pub(super) fn record_at(path: RelPath, body: &[u8]) -> Decoded<BaselineRecord> {
    let mut input = Input(body);
    let has = input.byte()?;
    let kinds = input.byte()?;
    let skip = match has & HAS_SKIP {
        0 => None,
        _ => Some(item_of(&SKIPS, input.byte()?, "an unknown reason to skip")?),
    };
    let (mode, uid, gid) = (input.number32()?, input.number32()?, input.number32()?);
    let size = input.number()?;
    let (mtime, ctime) = (input.stamp()?, input.stamp()?);
    let (dev, ino, nlink) = (input.number()?, input.number()?, input.number32()?);
    let rdev = if has & HAS_RDEV == 0 { 0 } else { input.number()? };
    let flags = if has & HAS_FLAGS == 0 { 0 } else { input.number32()? };
    let target = if has & HAS_TARGET == 0 { None } else { Some(input.bytes()?.to_vec()) };
    let mut xattrs = Vec::new();
    if has & HAS_XATTRS != 0 {
        // No allocation by the announced count: it may be a lie.
        for _ in 0..input.number()? {
            xattrs.push((input.bytes()?.to_vec(), input.bytes()?.to_vec()));
        }
    }
    let sha256 = if has & HAS_SHA256 == 0 { None } else { Some(input.digest()?) };
    if !input.is_empty() {
        return Err(Malformed("bytes behind a record"));
    }
    Ok(BaselineRecord {
        path,
        role: item_of(&ROLES, kinds >> 4, "an unknown role")?,
        sealed: match has & (SEALED | IMMUTABLE) {
            0 => Seal::None,
            SEALED => Seal::ReadOnly,
            _ if has & SEALED != 0 => Seal::Immutable,
            _ => return Err(Malformed("an immutable flag without a seal")),
        },
        skip,
        entry: Entry {
            kind: item_of(&KINDS, kinds & 0xf, "an unknown type")?,
            mode,
            uid,
            gid,
            size,
            mtime,
            ctime,
            dev,
            ino,
            nlink,
            rdev,
            flags,
            target,
            xattrs,
            sha256,
        },
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEALS: [Seal; 3] = [Seal::None, Seal::ReadOnly, Seal::Immutable];

    fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..most)
    }

    fn stamp() -> impl Strategy<Value = Stamp> {
        (any::<i64>(), any::<u32>()).prop_map(|(sec, nsec)| Stamp { sec, nsec })
    }

    fn path() -> impl Strategy<Value = RelPath> {
        prop::collection::vec(bytes(20), 0..6)
            .prop_map(|parts| parts.iter().fold(RelPath::root(), |dir, name| dir.join(name).unwrap_or(dir)))
    }

    prop_compose! {
        fn numbers()(mode in any::<u32>(), uid in any::<u32>(), gid in any::<u32>(), size in any::<u64>(),
                     dev in any::<u64>(), ino in any::<u64>(), nlink in any::<u32>(), rdev in any::<u64>(),
                     flags in any::<u32>(), mtime in stamp(), ctime in stamp()) -> Entry {
            Entry { kind: Kind::File, mode, uid, gid, size, mtime, ctime, dev, ino, nlink, rdev, flags,
                    target: None, xattrs: vec![], sha256: None }
        }
    }

    prop_compose! {
        pub(in super::super) fn records()(path in path(), entry in numbers(), kind in 0..KINDS.len(),
                role in 0..ROLES.len(), seal in 0..SEALS.len(), skip in prop::option::of(0..SKIPS.len()),
                target in prop::option::of(bytes(40)), plain in any::<bool>(),
                xattrs in prop::collection::vec((bytes(10), bytes(60)), 0..4),
                sha256 in prop::option::of(any::<[u8; 32]>())) -> BaselineRecord {
            let mut entry = Entry { kind: KINDS[kind], target, xattrs, sha256: sha256.map(Digest), ..entry };
            if plain {
                (entry.rdev, entry.flags) = (0, 0);
            }
            BaselineRecord { path, role: ROLES[role], sealed: SEALS[seal], skip: skip.map(|s| SKIPS[s]), entry }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(r in records()) {
            let mut body = Vec::new();
            put_body(&mut body, &r);
            prop_assert_eq!(record(key_of(&r.path), &body), Ok(r));
        }

        #[test]
        fn changed_bytes_never_panic(r in records(), at in any::<prop::sample::Index>(), to: u8, cut: bool) {
            let mut body = Vec::new();
            put_body(&mut body, &r);
            let at = at.index(body.len());
            body[at] = to;
            if cut {
                body.truncate(at);
            }
            let found = record(key_of(&r.path), &body);
            if cut {
                prop_assert!(found.is_err());
            }
        }

        #[test]
        fn any_bytes_never_panic(body: Vec<u8>, parent: Vec<u8>, name: Vec<u8>) {
            if let Ok(r) = record((&parent, &name), &body) {
                prop_assert_eq!(key_of(&r.path), (parent.as_slice(), name.as_slice()));
            }
        }

        #[test]
        fn keys_are_paths(r in records()) {
            prop_assert_eq!(path_of(key_of(&r.path)), Ok(r.path.clone()));
        }

        #[test]
        fn numbers_have_one_length(n: u64) {
            let mut out = Vec::new();
            put_number(&mut out, n);
            let mut input = Input(&out);
            prop_assert_eq!(input.number(), Ok(n));
            prop_assert!(input.is_empty() && out.len() <= 10);
        }
    }

    /// Bodies as they were written before there was the immutable flag.
    #[test]
    fn old_bodies_say_read_only_or_not_sealed() {
        let body = |has: u8| {
            let mut body = vec![has, 0, 0xa4, 3, 0, 0, 3];
            body.extend([2, 5, 4, 6, 1, 10, 1]);
            body
        };
        let seal = |has| record((b"", b"f"), &body(has)).map(|r| (r.sealed, r.entry.mode, r.entry.ino));
        assert_eq!(seal(0), Ok((Seal::None, 0o644, 10)));
        assert_eq!(seal(SEALED), Ok((Seal::ReadOnly, 0o644, 10)));
        assert_eq!(seal(SEALED | IMMUTABLE), Ok((Seal::Immutable, 0o644, 10)));
        assert!(seal(IMMUTABLE).is_err());
    }

    #[test]
    fn numbers_that_are_too_large_are_refused() {
        assert!(Input(&[0xff; 10]).number().is_err());
        assert!(Input(&[0xff; 20]).number().is_err());
        assert!(Input(&[]).number().is_err());
    }
}

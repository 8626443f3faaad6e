//! The bytes that a fanotify group gives, taken apart (fanotify(7), linux/fanotify.h).
//!
//! Pure: no system call. Whatever does not fit its announced length ends the parse with
//! [`Malformed`], never with a panic.

/// One event as it stands in the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raw<'a> {
    /// `FAN_*` bits.
    pub(super) mask: u64,
    /// The process that caused it, 0 where the kernel does not tell.
    pub(super) pid: i32,
    /// The descriptor number of a pidfd that now belongs to this process, or a negative number.
    pub(super) pidfd: i32,
    /// The directory and the name in it, where there was such a record.
    pub(super) place: Option<Place<'a>>,
    /// The mount that it is about, where there was such a record.
    pub(super) mount: Option<u64>,
}

/// A directory by its handle, and a name in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// The file system's id, then the handle's type and bytes, as they stand in the record.
    pub(super) fsid: &'a [u8],
    pub(super) kind: i32,
    pub(super) handle: &'a [u8],
    /// Without its terminating zero; `.` where the event is about the directory itself.
    pub(super) name: &'a [u8],
}

/// The kernel's bytes are not what fanotify(7) says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

const METADATA: usize = size_of::<libc::fanotify_event_metadata>();
const HEADER: usize = 4;
/// `FAN_EVENT_INFO_TYPE_MNT` (Linux 6.14), and where `mnt_id` stands in its record.
const INFO_TYPE_MNT: u8 = 7;
const MNT_ID: usize = 8;

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Malformed> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or(Malformed)
}

/// Takes the first event off `bytes`; `None` at their end.
pub(super) fn next<'a>(bytes: &mut &'a [u8]) -> Result<Option<Raw<'a>>, Malformed> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let length = u32::from_ne_bytes(array(bytes, 0)?) as usize;
    let version = array::<1>(bytes, 4)?[0];
    let metadata = u16::from_ne_bytes(array(bytes, 6)?) as usize;
    if version != libc::FANOTIFY_METADATA_VERSION || metadata < METADATA || length < metadata {
        return Err(Malformed);
    }
    let (event, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
    *bytes = rest;
    let mut raw = Raw {
        mask: u64::from_ne_bytes(array(event, 8)?),
        pid: i32::from_ne_bytes(array(event, 20)?),
        pidfd: libc::FAN_NOPIDFD,
        place: None,
        mount: None,
    };
    let mut records = event.get(metadata..).ok_or(Malformed)?;
    while !records.is_empty() {
        let kind = array::<1>(records, 0)?[0];
        let length = u16::from_ne_bytes(array(records, 2)?) as usize;
        if length < HEADER {
            return Err(Malformed);
        }
        let (record, rest) = records.split_at_checked(length).ok_or(Malformed)?;
        records = rest;
        let body = record.get(HEADER..).ok_or(Malformed)?;
        match kind {
            libc::FAN_EVENT_INFO_TYPE_PIDFD => raw.pidfd = i32::from_ne_bytes(array(body, 0)?),
            libc::FAN_EVENT_INFO_TYPE_DFID_NAME => raw.place = Some(place(body, true)?),
            // A group for reads asks for this one alone.
            libc::FAN_EVENT_INFO_TYPE_FID if raw.place.is_none() => raw.place = Some(place(body, false)?),
            libc::FAN_EVENT_INFO_TYPE_DFID => raw.place = Some(place(body, false)?),
            INFO_TYPE_MNT => raw.mount = Some(u64::from_ne_bytes(array(record, MNT_ID)?)),
            _ => {}
        }
    }
    Ok(Some(raw))
}

/// A file id record: fsid, handle length, handle type, handle, and a name where it has one.
fn place(body: &[u8], named: bool) -> Result<Place<'_>, Malformed> {
    let (fsid, rest) = body.split_at_checked(8).ok_or(Malformed)?;
    let length = u32::from_ne_bytes(array(rest, 0)?) as usize;
    let kind = i32::from_ne_bytes(array(rest, 4)?);
    let (handle, rest) = rest.get(8..).and_then(|r| r.split_at_checked(length)).ok_or(Malformed)?;
    let name = match named {
        true => rest.split(|b| *b == 0).next().filter(|n| !n.is_empty()).ok_or(Malformed)?,
        false => b".",
    };
    Ok(Place { fsid, kind, handle, name })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0];
        let length = (HEADER + body.len()).next_multiple_of(4);
        bytes.extend(u16::try_from(length).unwrap().to_ne_bytes());
        bytes.extend(body);
        bytes.resize(length, 0);
        bytes
    }

    fn named(handle: &[u8], name: &[u8]) -> Vec<u8> {
        let mut body = vec![7; 8];
        body.extend(u32::try_from(handle.len()).unwrap().to_ne_bytes());
        body.extend(1i32.to_ne_bytes());
        body.extend(handle);
        body.extend(name);
        body.push(0);
        record(libc::FAN_EVENT_INFO_TYPE_DFID_NAME, &body)
    }

    fn event(mask: u64, pid: i32, records: &[Vec<u8>]) -> Vec<u8> {
        let records = records.concat();
        let mut bytes = u32::try_from(METADATA + records.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend([libc::FANOTIFY_METADATA_VERSION, 0]);
        bytes.extend(u16::try_from(METADATA).unwrap().to_ne_bytes());
        bytes.extend(mask.to_ne_bytes());
        bytes.extend(libc::FAN_NOFD.to_ne_bytes());
        bytes.extend(pid.to_ne_bytes());
        bytes.extend(records);
        bytes
    }

    fn all(mut bytes: &[u8]) -> Result<usize, Malformed> {
        let mut count = 0;
        while next(&mut bytes)?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    fn two() -> Vec<u8> {
        let pidfd = record(libc::FAN_EVENT_INFO_TYPE_PIDFD, &9i32.to_ne_bytes());
        let mut bytes = event(libc::FAN_MODIFY, 42, &[named(b"12345678", b"f\xff"), pidfd]);
        bytes.extend(event(libc::FAN_Q_OVERFLOW, 0, &[]));
        bytes
    }

    #[test]
    fn events_come_with_their_place_and_process() {
        let bytes = two();
        let mut left = bytes.as_slice();
        let first = next(&mut left).unwrap().unwrap();
        let place = Place { fsid: &[7; 8], kind: 1, handle: b"12345678", name: b"f\xff" };
        let expected = Raw { mask: libc::FAN_MODIFY, pid: 42, pidfd: 9, place: Some(place), mount: None };
        assert_eq!(first, expected);
        let second = next(&mut left).unwrap().unwrap();
        assert_eq!(
            (second.mask, second.place, second.pidfd),
            (libc::FAN_Q_OVERFLOW, None, libc::FAN_NOPIDFD)
        );
        assert_eq!(next(&mut left), Ok(None));
    }

    #[test]
    fn mounts_come_with_their_number() {
        let body = [&[0; 4][..], &77_u64.to_ne_bytes()].concat();
        let bytes = event(0x0100_0000, 42, &[record(INFO_TYPE_MNT, &body)]);
        assert_eq!(next(&mut bytes.as_slice()).unwrap().unwrap().mount, Some(77));
        let short = event(0x0100_0000, 42, &[record(INFO_TYPE_MNT, &body[..8])]);
        assert_eq!(next(&mut short.as_slice()), Err(Malformed));
    }

    #[test]
    fn no_byte_changed_or_cut_off_makes_it_panic() {
        let whole = two();
        for cut in 0..whole.len() {
            // Between events it merely ends early.
            assert!(all(&whole[..cut]).is_err() || cut == 0 || cut == whole.len() - METADATA, "{cut}");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                // Whether it is an error depends on the byte; that it ends is what counts.
                assert!(all(&bytes).is_err() || all(&bytes).is_ok());
            }
        }
    }
}

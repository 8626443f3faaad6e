//! Lines of `SHA256SUMS`, as coreutils' `sha256sum` writes and checks them.

use guard_model::Kind;
use guard_model::baseline::BaselineRecord;

/// Appends the line of a regular file; other kinds, and files that could not be
/// read, have none.
///
/// Names with a backslash, newline or carriage return are escaped, and the line
/// then starts with a backslash (coreutils manual, "md5sum invocation").
pub(super) fn put_line(out: &mut Vec<u8>, record: &BaselineRecord) {
    let (Kind::File, Some(digest)) = (record.entry.kind, record.entry.sha256) else { return };
    let name = record.path.as_bytes();
    let is_escaped = name.iter().any(|b| matches!(b, b'\\' | b'\n' | b'\r'));
    if is_escaped {
        out.push(b'\\');
    }
    digest.text(|text| out.extend_from_slice(text.as_bytes()));
    out.extend_from_slice(b"  ");
    if name == b"-" {
        // Alone it would mean standard input.
        out.extend_from_slice(b"./");
    }
    if is_escaped {
        name.iter().for_each(|&b| put_escaped(out, b));
    } else {
        out.extend_from_slice(name);
    }
    out.push(b'\n');
}

fn put_escaped(out: &mut Vec<u8>, b: u8) {
    match b {
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b => out.push(b),
    }
}

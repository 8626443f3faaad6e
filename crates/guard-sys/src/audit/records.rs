//! The text of kernel audit records, taken apart: `audit(SECONDS.MILLIS:SERIAL): key=value key="value" …`.
//!
//! Pure: no system call. Values are chosen by whoever is audited; what does not fit is no record.

/// What one system call's record (type `SYSCALL`) tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemCall {
    /// When, milliseconds since the epoch.
    pub at_ms: i64,
    /// The key of the rule that it fits.
    pub key: Vec<u8>,
    /// Did it succeed?
    pub success: bool,
    /// Was it execve(2) or execveat(2) of this machine's own interface?
    pub executed: bool,
    /// The process.
    pub pid: i32,
    /// Its parent.
    pub parent: i32,
    /// Its real user.
    pub uid: u32,
    /// The user that logged in; `None` where nobody did.
    pub login_uid: Option<u32>,
    /// `comm`, chosen by itself.
    pub name: Vec<u8>,
    /// The path of what it executes, in its own mount namespace.
    pub exe: Option<Vec<u8>>,
}

/// `AUDIT_ARCH_*` of this machine's own system calls (linux/audit.h).
const ARCH: &[u8] = if cfg!(target_arch = "aarch64") { b"c00000b7" } else { b"c000003e" };
/// A user id that is none.
const NOBODY: u32 = u32::MAX;

/// `None` for what is no such record, or has no key.
#[must_use]
pub fn system_call(text: &[u8]) -> Option<SystemCall> {
    let (at_ms, fields) = stamped(text)?;
    let mut found = Fields::default();
    for field in fields.split(|b| *b == b' ') {
        let Some(at) = field.iter().position(|b| *b == b'=') else { continue };
        let (name, value) = (field.get(..at)?, field.get(at + 1..)?);
        found.note(name, value);
    }
    let number = |value: Option<&[u8]>| std::str::from_utf8(value?).ok()?.parse::<i64>().ok();
    let of = |value| number(value).and_then(|n| u32::try_from(n).ok());
    let call = number(found.syscall);
    let is_exec = [libc::SYS_execve, libc::SYS_execveat].map(Some).contains(&call);
    Some(SystemCall {
        at_ms,
        key: string(found.key?)?,
        success: found.success == Some(b"yes"),
        executed: is_exec && found.arch == Some(ARCH),
        pid: number(found.pid).and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0)?,
        parent: number(found.parent).and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0),
        uid: of(found.uid)?,
        login_uid: of(found.login_uid).filter(|uid| *uid != NOBODY),
        name: found.name.and_then(string).unwrap_or_default(),
        exe: found.exe.and_then(string),
    })
}

/// What a record about the rules (type `CONFIG_CHANGE`) tells of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was added.
    Added,
    /// It went.
    Removed,
}

/// What became of a rule whose key begins with these bytes; `None` where it is about something else.
#[must_use]
pub fn change(text: &[u8], key: &[u8]) -> Option<Change> {
    let has = |wanted: &[u8]| text.windows(wanted.len().max(1)).any(|piece| piece == wanted);
    if !has(key) && !has(hexadecimal(key).as_bytes()) {
        return None;
    }
    match (has(b"op=add_rule"), has(b"op=remove_rule")) {
        (true, _) => Some(Change::Added),
        (_, true) => Some(Change::Removed),
        _ => None,
    }
}

#[derive(Default)]
struct Fields<'a> {
    arch: Option<&'a [u8]>,
    syscall: Option<&'a [u8]>,
    success: Option<&'a [u8]>,
    parent: Option<&'a [u8]>,
    pid: Option<&'a [u8]>,
    login_uid: Option<&'a [u8]>,
    uid: Option<&'a [u8]>,
    name: Option<&'a [u8]>,
    exe: Option<&'a [u8]>,
    key: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn note(&mut self, name: &[u8], value: &'a [u8]) {
        let field = match name {
            b"arch" => &mut self.arch,
            b"syscall" => &mut self.syscall,
            b"success" => &mut self.success,
            b"ppid" => &mut self.parent,
            b"pid" => &mut self.pid,
            b"auid" => &mut self.login_uid,
            b"uid" => &mut self.uid,
            b"comm" => &mut self.name,
            b"exe" => &mut self.exe,
            b"key" => &mut self.key,
            _ => return,
        };
        // The kernel writes each once.
        field.get_or_insert(value);
    }
}

/// The time, and what comes after the serial number.
fn stamped(text: &[u8]) -> Option<(i64, &[u8])> {
    let rest = text.strip_prefix(b"audit(")?;
    let end = rest.windows(3).take(64).position(|piece| piece == b"): ")?;
    let stamp = std::str::from_utf8(rest.get(..end)?).ok()?;
    let (time, _serial) = stamp.split_once(':')?;
    let (seconds, millis) = time.split_once('.')?;
    let seconds = seconds.parse::<i64>().ok()?.checked_mul(1000)?;
    Some((seconds.checked_add(millis.parse::<i64>().ok()?)?, rest.get(end + 3..)?))
}

/// A string that somebody chose: in quotes, or in hexadecimal where it holds anything that could be mistaken.
/// `(null)` is none.
fn string(value: &[u8]) -> Option<Vec<u8>> {
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    if let Some(quoted) = value.strip_prefix(b"\"") {
        return quoted.strip_suffix(b"\"").map(<[u8]>::to_vec);
    }
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = value.chunks_exact(2);
    if !pairs.remainder().is_empty() || value.is_empty() {
        return None;
    }
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.last()?)?)).collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        write!(text, "{byte:02X}").ok();
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REAL: &[u8] = b"audit(1795338000.123:456): arch=c000003e syscall=257 success=yes exit=3 a0=ffffff9c \
        a1=7ffd0 a2=0 a3=0 items=1 ppid=100 pid=4711 auid=1000 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 \
        fsgid=0 tty=pts1 ses=3 comm=\"cat\" exe=\"/usr/bin/cat\" subj=unconfined key=\"guardd-1-2\"";

    #[test]
    fn a_record_as_the_kernel_writes_it() {
        let told = system_call(REAL).unwrap();
        assert_eq!((told.at_ms, told.pid, told.parent), (1_795_338_000_123, 4711, 100));
        assert_eq!((told.uid, told.login_uid, told.success, told.executed), (0, Some(1000), true, false));
        assert_eq!((told.name.as_slice(), told.exe.as_deref()), (&b"cat"[..], Some(&b"/usr/bin/cat"[..])));
        assert_eq!(told.key, b"guardd-1-2");
    }

    #[test]
    fn names_that_could_be_mistaken_are_in_hexadecimal() {
        let text = String::from_utf8(REAL.to_vec()).unwrap();
        let hostile = text.replace("\"cat\"", "7375646F206B65793D78").replace("auid=1000", "auid=4294967295");
        let told = system_call(hostile.as_bytes()).unwrap();
        assert_eq!((told.name.as_slice(), told.login_uid), (&b"sudo key=x"[..], None));
        assert!(system_call(text.replace("\"guardd-1-2\"", "(null)").as_bytes()).is_none());
        assert!(system_call(text.replace("pid=4711", "pid=-4").as_bytes()).is_none());
        assert_eq!(system_call(text.replace("\"/usr/bin/cat\"", "(null)").as_bytes()).unwrap().exe, None);
    }

    #[test]
    fn rules_that_go_are_told() {
        let text = b"audit(1.0:2): auid=0 ses=1 op=remove_rule key=\"guardd-1-2\" list=4 res=1";
        assert_eq!((change(text, b"guardd-1-"), change(text, b"guardd-9-")), (Some(Change::Removed), None));
        let added = b"audit(1.0:2): op=add_rule key=\"guardd-1-2\"";
        assert_eq!(change(added, b"guardd-1-"), Some(Change::Added));
        let encoded = b"op=remove_rule key=6775617264642D312D32";
        assert_eq!(change(encoded, b"guardd-1-"), Some(Change::Removed));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, at: prop::sample::Index, cut: prop::sample::Index, value: u8) {
            prop_assert!(system_call(&bytes).is_none());
            prop_assert!(change(&bytes, b"guardd-").is_none());
            let mut whole = REAL.to_vec();
            let at = at.index(whole.len());
            whole[at] = value;
            // Whether it is a record still depends on the byte; that it ends is what counts.
            prop_assert!(system_call(&whole).is_none_or(|call| call.pid > 0));
            whole.truncate(cut.index(whole.len()));
            prop_assert!(system_call(&whole).is_none_or(|call| call.pid > 0));
        }

        #[test]
        fn any_name_comes_back(name: Vec<u8>) {
            let plain = !name.is_empty() && name.iter().all(|b| b.is_ascii_graphic() && *b != b'"');
            let written = match plain {
                true => [b"\"", name.as_slice(), b"\""].concat(),
                false => hexadecimal(&name).into_bytes(),
            };
            let text = [&b"audit(1.0:2): pid=7 uid=0 comm="[..], &written, b" key=\"k\""].concat();
            prop_assert_eq!(system_call(&text).unwrap().name, name);
        }
    }
}

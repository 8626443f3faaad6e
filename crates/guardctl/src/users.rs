//! Names of local users and groups, where there are any.

use std::path::Path;

/// `anna (uid 1000)`, or `uid 1000` where no local user has it.
pub(crate) fn user(uid: u32) -> String {
    named(Path::new("/etc/passwd"), uid, "uid")
}

/// `guardd`, or `gid 998`.
pub(crate) fn group(gid: u32) -> String {
    name_of(Path::new("/etc/group"), gid).unwrap_or_else(|| format!("gid {gid}"))
}

/// Is this user named as a member of the group in `/etc/group`?
pub(crate) fn is_listed(gid: u32, user: &str) -> bool {
    let text = std::fs::read_to_string("/etc/group").unwrap_or_default();
    text.lines().any(|line| {
        let mut fields = line.split(':');
        fields.nth(2) == Some(gid.to_string().as_str())
            && fields.next().is_some_and(|members| members.split(',').any(|m| m == user))
    })
}

/// The login name of a user, where a local one has this uid.
pub(crate) fn login_name(uid: u32) -> Option<String> {
    name_of(Path::new("/etc/passwd"), uid)
}

fn named(file: &Path, id: u32, word: &str) -> String {
    match name_of(file, id) {
        Some(name) => format!("{name} ({word} {id})"),
        None => format!("{word} {id}"),
    }
}

/// The first field of the line whose third field is the id: passwd(5), group(5).
fn name_of(file: &Path, id: u32) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let id = id.to_string();
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| crate::safe::safe(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_a_name_and_strangers_have_a_number() {
        assert_eq!(user(0), "root (uid 0)");
        assert_eq!(group(0), "root");
        assert_eq!(user(4_242_424), "uid 4242424");
        assert!(!is_listed(0, "nobody in particular"));
    }
}

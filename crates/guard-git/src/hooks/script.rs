//! The text of the hooks: a POSIX shell script that filters first, because git
//! calls `reference-transaction` at every update of every reference, and hands
//! over to guardd only what concerns a branch.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Hook;
use super::note::previous_name;

/// The first words of every hook of ours.
pub(super) const MARK: &str = "# Hook of guardd";

/// What a hook is made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) program: &'a Path,
    pub(super) state_dir: &'a Path,
    /// `None` where only contents are checked.
    pub(super) environment: Option<&'a str>,
    pub(super) branches: &'a [String],
}

/// Which hook is called after ours.
#[derive(Debug, Clone, Copy)]
pub(super) enum Previous<'a> {
    /// None.
    Nothing,
    /// The one that waits beside ours, run by its own first line.
    Beside,
    /// A shell script that waits beside ours: read by this shell, so that it finds its own name in `$0`.
    BesideForShell(&'a str),
    /// The one of the same name in this directory, if there is one by then.
    In(&'a OsStr),
}

/// One of our hooks.
pub(super) fn hook(hook: Hook, setting: Setting<'_>, previous: Previous<'_>) -> String {
    let mut out = head(hook.name());
    out.push_str(&format!("guardd={}\n", quoted(setting.program.as_os_str())));
    out.push_str(&called(hook.name(), previous));
    let call = call(hook, setting);
    out.push_str(&match (hook.reads_references(), previous) {
        (true, Previous::Nothing) => {
            format!("{}{}ours \"$@\"\nexit 0\n", prepared_only(hook), filter(hook, setting, &call))
        }
        (true, _) => format!(
            "{}input=$(cat; printf .)\ninput=${{input%.}}\n{}printf %s \"$input\" | ours \"$@\" || exit 1\n{}",
            filter(hook, setting, &call),
            if hook == Hook::ReferenceTransaction { "[ \"$1\" != prepared ] || \\\n" } else { "" },
            "printf %s \"$input\" | previous \"$@\"\n"
        ),
        (false, previous) => {
            let then = match previous {
                Previous::Nothing => "exit 0\n",
                _ => "previous \"$@\"\n",
            };
            format!("if [ -x \"$guardd\" ]; then\n    {call} -- \"$@\" || exit 1\nelse\n    echo \"guardd: $guardd is missing: nothing was checked\" >&2\nfi\n{then}")
        }
    });
    out
}

/// A hook that only calls the one in another directory, for names that are not ours.
pub(super) fn passed_on(name: &str, directory: &OsStr) -> String {
    format!("{}{}previous \"$@\"\n", head(name), called(name, Previous::In(directory)))
}

fn head(name: &str) -> String {
    format!(
        "#!/bin/sh\n{MARK}, format 1: {name}. `guardctl git uninstall` takes it away again and\n# gives back what was here before; `guardctl git status` says how it stands.\n"
    )
}

fn called(name: &str, previous: Previous<'_>) -> String {
    let beside = previous_name(name);
    match previous {
        Previous::Nothing => String::new(),
        Previous::Beside => format!("previous() {{ exec \"${{0%/*}}/{beside}\" \"$@\"; }}\n"),
        Previous::BesideForShell(shell) => {
            format!("previous() {{ exec {shell} -c '. \"${{0%/*}}/{beside}\"' \"$0\" \"$@\"; }}\n")
        }
        Previous::In(directory) => {
            let path = quoted(std::path::Path::new(directory).join(name));
            format!("previous() {{ [ -x {path} ] || exit 0; exec {path} \"$@\"; }}\n")
        }
    }
}

fn prepared_only(hook: Hook) -> &'static str {
    match hook {
        Hook::ReferenceTransaction => "[ \"$1\" = prepared ] || exit 0\n",
        _ => "",
    }
}

/// Reads lines until one concerns a branch; from there on guardd reads.
fn filter(hook: Hook, setting: Setting<'_>, call: &str) -> String {
    let (fields, git_head) = match hook {
        Hook::ReferenceTransaction => (
            "old new ref",
            // Git writes it before a merge touches the work tree: the moment to refuse one.
            "        ORIG_HEAD) case ${GIT_REFLOG_ACTION-} in merge | merge\\ * | pull*) ;; *) continue ;; esac ;;\n",
        ),
        Hook::PrePush => ("old new ref rest", ""),
        _ => ("old new ref", ""),
    };
    let rest = if hook == Hook::PrePush { " $rest" } else { "" };
    let held = pattern(setting.branches);
    format!(
        "ours() {{\n    while IFS=' ' read -r {fields}; do\n        case $ref in\n        refs/heads/*) ;;\n{git_head}        *) continue ;;\n        esac\n        if [ ! -x \"$guardd\" ]; then\n            case $ref in\n            {held})\n                echo \"guardd: refused: $guardd is missing, so that nobody can say whether $ref is locked.\" >&2\n                echo \"  Install it again, or have this hook removed by whoever answers for the branch.\" >&2\n                exit 1 ;;\n            *) continue ;;\n            esac\n        fi\n        exec {call} --line \"$old $new $ref{rest}\" -- \"$@\"\n    done\n}}\n"
    )
}

/// The protected branches as a shell pattern.
fn pattern(branches: &[String]) -> String {
    if branches.is_empty() {
        return "refs/heads/*".to_owned();
    }
    let one = |branch: &String| {
        let parts: Vec<String> =
            branch.split('*').map(|p| if p.is_empty() { String::new() } else { quoted(p) }).collect();
        format!("refs/heads/{}", parts.join("*"))
    };
    branches.iter().map(one).collect::<Vec<_>>().join(" | ")
}

fn call(hook: Hook, setting: Setting<'_>) -> String {
    let mut out = format!("\"$guardd\" git hook {} --git-pid \"$PPID\"", hook.name());
    if let Some(environment) = setting.environment {
        out.push_str(&format!(
            " --environment {} --state-dir {}",
            quoted(environment),
            quoted(setting.state_dir.as_os_str())
        ));
        for branch in setting.branches {
            out.push_str(&format!(" --branch {}", quoted(branch)));
        }
    }
    out
}

/// A word of a shell script, whatever is in it.
fn quoted(word: impl AsRef<OsStr>) -> String {
    let bytes = word.as_ref().as_bytes();
    let mut out = String::from("'");
    for chunk in bytes.utf8_chunks() {
        out.push_str(&chunk.valid().replace('\'', "'\\''"));
        for byte in chunk.invalid() {
            // Leaves the quotes for a moment: printf is the portable way to any byte.
            out.push_str(&format!("'\"$(printf '\\{byte:03o}')\"'"));
        }
    }
    out.push('\'');
    out
}

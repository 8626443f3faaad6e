//! The proposal as a commented configuration file.

use guard_model::path::escape;

use super::choose::{Choices, Line};
use super::pattern;

/// The longest line of a wrapped comment, in characters.
const WIDTH: usize = 100;

pub(super) fn configuration(environment: &str, root: &str, c: &Choices) -> String {
    let mut out = String::new();
    comment(
        &mut out,
        &format!(
            "Proposed by looking at the directory; yours to change. Every key is explained in \
             /usr/share/doc/guardd/configuration.md. Next: guardd check-config, guardctl reload, guardctl lock {}.",
            escape(environment.as_bytes())
        ),
    );
    out += "\nversion = 1\n\n";
    out += &format!("[environments.{}]\nroot = {}\n\n", key(environment), pattern::toml(root));
    if !c.found.is_empty() {
        comment(&mut out, "Found here:");
        for line in &c.found {
            comment(&mut out, &format!("- {line}"));
        }
        out += "#\n";
    }
    comment(
        &mut out,
        "Everything below the root is protected, so that a file that an intruder adds is noticed wherever he puts it.",
    );
    if !c.protect.is_empty() {
        comment(&mut out, "To protect only what was found here, and nothing that is added elsewhere:");
        out += "#protect = [\n";
        for p in &c.protect {
            out += &format!("#  {},\n", pattern::toml(p));
        }
        out += "#]\n";
    }
    out.push('\n');
    list(&mut out, "ignore", "Left alone. What happens here goes unnoticed.", &c.ignore);
    list(
        &mut out,
        "writable",
        "The application writes here: neither compared nor sealed, except for the directory itself.",
        &c.writable,
    );
    list(
        &mut out,
        "sensitive",
        "Contents are never shown in alerts and diffs, and are encrypted in backups.",
        &c.sensitive,
    );
    out += "seal = \"immutable\"     # immutable | read-only | none\n";
    out += "rehash = \"5m\"          # every protected file is read again at least this often\n";
    out += "on_tamper = \"alert\"    # alert | restore\n";
    let branch = c.branch.as_deref().unwrap_or("main");
    out += &format!("#branches = [{}]   # deployments come from these only\n", pattern::toml(branch));
    out += &format!("\n#[environments.{}.notify]\n", key(environment));
    out += "#command = [\"/usr/local/bin/page-me\"]   # gets each new alert as JSON on its standard input\n";
    out
}

/// A name as TOML: bare, unless it is one that will be refused, which then has
/// to be readable to be refused by its name.
fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if bare { name.to_owned() } else { pattern::toml(name) }
}

fn list(out: &mut String, key: &str, about: &str, lines: &[Line]) {
    comment(out, about);
    if lines.is_empty() {
        *out += &format!("{key} = []\n\n");
        return;
    }
    *out += &format!("{key} = [\n");
    let written: Vec<String> = lines.iter().map(|l| format!("{},", pattern::toml(&l.pattern))).collect();
    let width = written.iter().map(|w| w.chars().count()).max().unwrap_or(0).min(40);
    for (w, line) in written.iter().zip(lines) {
        *out += &format!("  {w:width$}  # {}\n", line.why);
    }
    *out += "]\n\n";
}

/// A comment, wrapped.
fn comment(out: &mut String, text: &str) {
    let mut width = 1;
    out.push('#');
    for word in text.split(' ') {
        let length = word.chars().count() + 1;
        if width > 1 && width + length > WIDTH {
            *out += "\n#";
            width = 1;
        }
        out.push(' ');
        *out += word;
        width += length;
    }
    out.push('\n');
}

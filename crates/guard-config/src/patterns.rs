//! Path patterns, each with its place, to a compiled policy.

use std::path::Path;

use guard_model::policy::{OF_A_REPOSITORY, PatternError, PatternText, Policy};

use crate::problem::quoted;
use crate::section::{At, Report};

/// The four lists of an environment, as written.
pub(crate) struct Lists {
    pub(crate) protect: Vec<At<String>>,
    pub(crate) ignore: Vec<At<String>>,
    pub(crate) writable: Vec<At<String>>,
    pub(crate) sensitive: Vec<At<String>>,
}

impl Lists {
    fn named(&self, name: &str) -> &[At<String>] {
        match name {
            "protect" => &self.protect,
            "ignore" => &self.ignore,
            "writable" => &self.writable,
            _ => &self.sensitive,
        }
    }

    fn text(&self) -> PatternText {
        let own = |list: &[At<String>]| list.iter().map(|p| p.value.clone()).collect();
        // Where nothing is named everything is protected, a repository with it.
        let of_a_repository = || OF_A_REPOSITORY.iter().map(|&p| p.to_owned()).collect();
        PatternText {
            protect: own(&self.protect),
            ignore: own(&self.ignore),
            writable: own(&self.writable),
            sensitive: own(&self.sensitive),
            implied: if self.protect.is_empty() { Vec::new() } else { of_a_repository() },
        }
    }
}

/// Compiles the patterns and reports every bad one; with any bad one the
/// result protects everything, so that it cannot be mistaken for less.
pub(crate) fn compile(report: &Report, lists: &Lists, root: Option<&Path>) -> Policy {
    for pattern in ["protect", "ignore", "writable", "sensitive"].iter().flat_map(|l| lists.named(l)) {
        if let Some(relative) = root.and_then(|root| below(root, &pattern.value)) {
            let what = format!("{} repeats the root; patterns begin there", quoted(&pattern.value));
            report.push(pattern.place.problem(what, format!("write {}", quoted(&relative))));
        }
    }
    match Policy::new(lists.text()) {
        Ok(policy) => policy,
        Err(bad) => {
            for (list, index, error) in bad {
                if let Some(pattern) = lists.named(list).get(index) {
                    let what = match &error {
                        PatternError::Empty => error.to_string(),
                        _ => format!("{}: {error}", quoted(&pattern.value)),
                    };
                    report.push(pattern.place.problem(what, fix(&error, &pattern.value)));
                }
            }
            Policy::default()
        }
    }
}

/// The pattern without the root that it begins with.
fn below(root: &Path, pattern: &str) -> Option<String> {
    let rest = pattern.strip_prefix(root.to_str()?)?;
    (rest.is_empty() || rest.starts_with('/')).then(|| if rest.len() > 1 { rest } else { "*" }.to_owned())
}

fn fix(error: &PatternError, text: &str) -> String {
    match error {
        PatternError::Empty => "remove it; a list without patterns is written `[]`".to_owned(),
        PatternError::Negated => {
            let rest = text.trim_start_matches('!');
            format!(
                "remove it; what `protect` would take in and should not goes to `ignore`, as {}",
                quoted(rest)
            )
        }
        PatternError::Component => {
            let parts: Vec<&str> = text.split('/').filter(|c| !matches!(*c, "" | "." | "..")).collect();
            let end = if text.ends_with('/') { "/" } else { "" };
            match parts.as_slice() {
                [] => "remove it, or name what is meant below the root".to_owned(),
                parts => format!("write {}", quoted(&format!("{}{end}", parts.join("/")))),
            }
        }
        PatternError::Glob(_) => {
            "close every `[` and `{`, or take them literally with a backslash before them, as in `'\\['`"
                .to_owned()
        }
    }
}

//! Variables within values, for the readers that put another value in their place.

use super::{Said, Variables};

/// Which forms a reader expands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forms {
    /// `$NAME`, `${NAME}` and defaults, `$$` is one `$`: compose.
    Compose,
    /// `${NAME}` and `${NAME:-default}` alone: python-dotenv.
    Braces,
    /// `$NAME` and `${NAME}`; whatever else a shell does is unclear.
    Shell,
}

const OUTSIDE: Said = Said::Unclear("it takes a variable from outside the file");
const COMPLEX: Said = Said::Unclear("what it comes to is not certain");

/// The value with variables that the file has set before in their places.
pub(super) fn expand(text: &str, forms: Forms, known: &Variables) -> Said {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(rest.get(..at).unwrap_or_default());
        rest = rest.get(at + 1..).unwrap_or_default();
        let Some(next) = rest.chars().next() else {
            match forms {
                Forms::Compose => return COMPLEX,
                Forms::Braces | Forms::Shell => out.push('$'),
            }
            break;
        };
        let (name, after, default) = match next {
            '{' => {
                let Some(end) = rest.find('}') else {
                    if forms == Forms::Braces {
                        out.push('$');
                        continue;
                    }
                    return COMPLEX;
                };
                let inside = rest.get(1..end).unwrap_or_default();
                let after = rest.get(end + 1..).unwrap_or_default();
                match inside.split_once(":-") {
                    Some((name, default)) if !default.contains(['$', '{']) => (name, after, Some(default)),
                    Some(_) => return COMPLEX,
                    None => (inside, after, None),
                }
            }
            '$' if forms == Forms::Compose => {
                out.push('$');
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            c if forms != Forms::Braces && (c == '_' || c.is_ascii_alphabetic()) => {
                let is_part = |c: char| c == '_' || c.is_ascii_alphanumeric();
                let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                let (name, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
                (name, after, None)
            }
            _ => match forms {
                Forms::Braces => {
                    out.push('$');
                    continue;
                }
                // `$1`, `$!`, `$(`, `$$` and the like.
                Forms::Compose | Forms::Shell => return COMPLEX,
            },
        };
        if !super::is_name(name) {
            return COMPLEX;
        }
        match (known.get(name), default) {
            (Some(Said::Value(v)), Some(default)) if v.is_empty() => out.push_str(default),
            (Some(Said::Value(v)), _) => out.push_str(v),
            (Some(unclear), _) => return unclear.clone(),
            (None, _) => return OUTSIDE,
        }
        rest = after;
    }
    out.push_str(rest);
    Said::Value(out)
}

//! Errors as people read them.

use std::error::Error;

/// An error with all its causes, the nearest first, joined by colons, in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        // A transparent wrapper repeats its cause's words.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

/// Is a full disk, or a quota, the cause?
#[must_use]
pub fn is_out_of_space(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the lock file")]
    struct Outer(#[source] Wrapper);

    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    struct Wrapper(#[from] std::num::ParseIntError);

    #[test]
    fn causes_follow_once_each() {
        let cause = "x".parse::<u8>().unwrap_err();
        assert_eq!(chain(&cause), "invalid digit found in string");
        assert_eq!(chain(&Outer(Wrapper(cause))), "cannot read the lock file: invalid digit found in string");
    }
}

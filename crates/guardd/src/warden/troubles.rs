//! What is wrong with an environment's guard, until it is right again.

use std::collections::BTreeMap;

/// What can be wrong. Each is put right by itself: that one thing works again
/// says nothing of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// The environment's state could not be read.
    Index,
    /// The root is not there, or not the one that was locked.
    Root,
    /// The baseline cannot be read: nothing can be compared.
    Baseline,
    /// An operation that nobody waits for failed.
    Operation,
    /// No thread could be started.
    Thread,
    /// Nobody looks at the seal.
    Seal,
    /// Something could not be put back.
    PutBack,
    /// The lock file does not say what it should.
    LockFile,
    /// Backups can neither be made nor read.
    Backups,
    /// Backups that the ledger knows are not there.
    BackupsGone,
}

/// What is wrong, a line for each topic.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<Topic, String>);

impl Troubles {
    /// From now on this is wrong. True where it was not said before.
    pub(super) fn begin(&mut self, topic: Topic, why: impl Into<String>) -> bool {
        let why = why.into();
        self.0.insert(topic, why.clone()).is_none_or(|before| before != why)
    }

    /// It is right again.
    pub(super) fn end(&mut self, topic: Topic) {
        self.0.remove(&topic);
    }

    /// What is wrong with one thing.
    pub(super) fn of(&self, topic: Topic) -> Option<&str> {
        self.0.get(&topic).map(String::as_str)
    }

    /// Everything that is wrong.
    pub(super) fn all(&self) -> impl Iterator<Item = &String> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_right_again_takes_nothing_else_along() {
        let mut t = Troubles::default();
        assert!(t.begin(Topic::Baseline, "damaged"));
        assert!(t.begin(Topic::Root, "gone"));
        assert!(!t.begin(Topic::Root, "gone"));
        assert!(t.begin(Topic::Root, "replaced"));
        t.end(Topic::Root);
        assert_eq!(t.of(Topic::Root), None);
        assert_eq!(t.all().collect::<Vec<_>>(), ["damaged"]);
    }
}

//! Where an environment's sensitive files are, for who looks for their values elsewhere.

use std::sync::Arc;

use guard_tree::Root;

use super::Warden;
use super::commands::Refusal;
use crate::comparer::Expectation;

/// What reading the sensitive files needs, beside the warden.
pub(crate) struct SensitiveView {
    pub(crate) root: Arc<Root>,
    /// Names them: the baseline records which entries are sensitive.
    pub(crate) expectation: Expectation,
}

impl Warden {
    pub(super) fn sensitive_view(&self) -> Result<SensitiveView, Refusal> {
        let root = self.root_in_place()?;
        let expectation = self.expectation().ok_or_else(|| self.no_baseline())?;
        Ok(SensitiveView { root, expectation })
    }
}

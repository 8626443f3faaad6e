//! What must hold before a deployment.

use serde::{Deserialize, Serialize};

use super::{Method, Step};
use crate::wire::ValidateResult;

/// Looks at everything that must hold before a deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validate {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
}

impl Method for Validate {
    const NAME: &'static str = "org.guardd.Control.Validate";
    type Reply = Step<ValidateResult>;
}

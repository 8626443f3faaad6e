//! Everything raw about Linux, and all unsafe code there is.

pub mod clock;
pub mod peer;

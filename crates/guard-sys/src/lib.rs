//! Everything raw about Linux, and all unsafe code there is.

//! Placeholder replaced by the first milestone.
fn main() {}

//! Finding passages.

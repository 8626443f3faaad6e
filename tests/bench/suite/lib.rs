//! Nothing but benches: see `benches/parts.rs`.

#![forbid(unsafe_code)]

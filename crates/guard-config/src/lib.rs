//! guardd.toml to a validated model.

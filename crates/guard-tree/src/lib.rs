//! Hands on a protected tree: walk, observe, hash, seal.

//! What must survive: ledger, baselines, keys, lock files, and the index.

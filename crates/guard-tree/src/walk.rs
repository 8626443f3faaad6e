//! The workers of a scan.

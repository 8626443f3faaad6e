//! The kernel's hints, merged into one stream of touches and gaps.

//! Deployments: the steps that change an environment, and what looks whether the application is well.
//!
//! Architecture invariant: whatever runs or looks at the application does so in a child process as the configured user
//! ([`worker`], started by [`run`]), outside the daemon's sandbox and without its rights. The daemon reads what the child
//! says as it reads everything from outside. Nothing here decides whether a deployment goes on.

#![forbid(unsafe_code)]

mod bounded;
mod child;
mod compose;
mod gates;
mod probe;
pub mod run;
pub mod worker;

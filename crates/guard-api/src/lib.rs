//! The control interface: IDL, wire types, framing, a blocking client.
//!
//! Architecture invariant: these types are the outer contract and nothing else.
//! They are not guard-model's: the daemon converts, so that a change inside
//! never changes what others see. Nothing here decides anything, and nothing
//! here trusts the other end of a socket: lengths are capped, times are bounded.

#![forbid(unsafe_code)]

mod client;
pub mod error;
mod frame;
pub mod method;
mod socket;
mod time;
pub mod wire;

pub use client::{Client, ClientError, Replies};
pub use error::{CallError, Exit, Known};
pub use frame::{CALL_CAP, Call, FrameError, Framing, REPLY_CAP, Reply, encode};
pub use method::Method;
pub use socket::{SYSTEM_SOCKET, default_socket, user_socket};
pub use time::{NotATime, Time};

/// The interface's name.
pub const INTERFACE: &str = "org.guardd.Control";

/// The interface's description, as `GetInterfaceDescription` gives it.
pub const INTERFACE_IDL: &str = include_str!("org.guardd.Control.varlink");

/// The name of the interface that every Varlink service has.
pub const SERVICE: &str = "org.varlink.service";

/// Its description.
pub const SERVICE_IDL: &str = include_str!("org.varlink.service.varlink");

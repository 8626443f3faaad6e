//! One TCP connection.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Instant;

use super::ANSWER;

pub(super) fn ask(address: &str) -> (bool, String) {
    let until = Instant::now() + ANSWER;
    let found = match address.to_socket_addrs() {
        Ok(found) => found,
        Err(e) => return (false, format!("{address} is no address: {e}")),
    };
    let mut why = "its name has no address".to_owned();
    for address in found {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(_) => return (true, "a connection was accepted".to_owned()),
            Err(e) => why = e.to_string(),
        }
    }
    (false, format!("no connection: {why}"))
}

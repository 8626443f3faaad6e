//! What must hold before a deployment, as it is configured.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Probe;
use crate::dotenv::Dialect;

/// What `guardctl validate` looks at beside what guardd knows by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validation {
    /// Files of variables, relative to the root; of a variable that several set, the last one's value counts.
    pub env_files: Vec<String>,
    /// Variables that one of the files must set to something.
    pub required: Vec<String>,
    /// Who reads the files: all of them must read the same.
    pub readers: Vec<Dialect>,
    /// systemd units that must be active.
    pub units: Vec<String>,
    /// What must answer now, beside a deployment's own health probes.
    pub probes: Vec<Probe>,
    /// Ports that are free, or held by the environment itself.
    pub ports: Vec<Port>,
    /// The newest backup that counts is at most so old.
    pub backup_max_age: Duration,
}

impl Default for Validation {
    fn default() -> Self {
        Self {
            env_files: Vec::new(),
            required: Vec::new(),
            readers: vec![Dialect::Compose],
            units: Vec::new(),
            probes: Vec::new(),
            ports: Vec::new(),
            backup_max_age: Duration::from_secs(7 * 86_400),
        }
    }
}

/// A port of this machine, written `8080` or `8080/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Its number; not 0.
    pub number: u16,
    /// Which protocol's.
    pub protocol: Protocol,
}

/// Whose ports they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Tcp => write!(f, "{}", self.number),
            Protocol::Udp => write!(f, "{}/udp", self.number),
        }
    }
}

/// The text is no port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a port: a number from 1 to 65535, or that and /udp")]
pub struct NotAPort;

impl FromStr for Port {
    type Err = NotAPort;

    fn from_str(text: &str) -> Result<Self, NotAPort> {
        let (number, protocol) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Protocol::Tcp),
            Some((number, "udp")) => (number, Protocol::Udp),
            Some(_) => return Err(NotAPort),
        };
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        match number.parse() {
            Ok(number @ 1..) if is_number => Ok(Self { number, protocol }),
            _ => Err(NotAPort),
        }
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_and_written() {
        for (text, number, protocol) in
            [("80", 80, Protocol::Tcp), ("80/tcp", 80, Protocol::Tcp), ("53/udp", 53, Protocol::Udp)]
        {
            assert_eq!(text.parse(), Ok(Port { number, protocol }));
        }
        for bad in ["", "0", "65536", "+80", "80/sctp", "80/tcp/tcp", "http", "/udp", " 80", "127.0.0.1:80"] {
            assert_eq!(bad.parse::<Port>(), Err(NotAPort), "{bad:?}");
        }
        let port = Port { number: 53, protocol: Protocol::Udp };
        assert_eq!(serde_json::to_string(&port).unwrap(), "\"53/udp\"");
        assert_eq!(serde_json::from_str::<Port>("\"53/udp\"").unwrap(), port);
    }
}

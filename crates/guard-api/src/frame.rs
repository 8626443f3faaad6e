//! Messages: JSON objects, each ended by a NUL byte.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::CallError;

/// The longest call a server takes, bytes without the NUL.
pub const CALL_CAP: usize = 1024 * 1024;

/// The longest reply a client takes, bytes without the NUL.
pub const REPLY_CAP: usize = 16 * 1024 * 1024;

/// A call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The full name.
    pub method: String,
    /// Its parameters.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub parameters: Map<String, Value>,
    /// Several replies are wanted.
    #[serde(default, deserialize_with = "null_is_false", skip_serializing_if = "is_false")]
    pub more: bool,
    /// No reply is wanted.
    #[serde(default, deserialize_with = "null_is_false", skip_serializing_if = "is_false")]
    pub oneway: bool,
    /// The connection should speak something else afterwards, which guardd never does.
    #[serde(default, deserialize_with = "null_is_false", skip_serializing_if = "is_false")]
    pub upgrade: bool,
}

/// A reply, or an error.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The reply's or the error's parameters.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub parameters: Map<String, Value>,
    /// Further replies to the same call follow.
    #[serde(default, deserialize_with = "null_is_false", skip_serializing_if = "is_false")]
    pub continues: bool,
    /// The error's full name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Bytes that are not a message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than the cap.
    #[error("a message is longer than {cap} bytes")]
    TooLong {
        /// The cap.
        cap: usize,
    },
    /// Not the JSON expected.
    #[error("a message is not what it should be: {source}")]
    Malformed {
        /// The parser's words.
        #[source]
        source: serde_json::Error,
    },
}

impl Call {
    /// A call of a method by its parameters.
    ///
    /// # Errors
    /// [`FrameError::Malformed`] where the parameters are no JSON object.
    pub fn of<M: crate::Method>(method: &M) -> Result<Self, FrameError> {
        let parameters = object_of(method)?;
        Ok(Self { method: M::NAME.to_owned(), parameters, ..Self::default() })
    }

    /// Reads a message without its NUL.
    ///
    /// # Errors
    /// [`FrameError::Malformed`].
    pub fn parse(message: &[u8]) -> Result<Self, FrameError> {
        parse_object(message)
    }

    /// The interface's name and the method's: what stands before and after the last dot.
    #[must_use]
    pub fn split(&self) -> (&str, &str) {
        self.method.rsplit_once('.').unwrap_or(("", &self.method))
    }
}

impl Reply {
    /// A reply with these parameters.
    ///
    /// # Errors
    /// [`FrameError::Malformed`] where they are no JSON object.
    pub fn of<T: Serialize>(parameters: &T) -> Result<Self, FrameError> {
        Ok(Self { parameters: object_of(parameters)?, ..Self::default() })
    }

    /// An error.
    #[must_use]
    pub fn error(error: impl Into<CallError>) -> Self {
        let (name, parameters) = error.into().into_parts();
        Self { parameters, continues: false, error: Some(name) }
    }

    /// The same, with more to follow.
    #[must_use]
    pub fn and_more(mut self) -> Self {
        self.continues = true;
        self
    }

    /// Reads a message without its NUL.
    ///
    /// # Errors
    /// [`FrameError::Malformed`].
    pub fn parse(message: &[u8]) -> Result<Self, FrameError> {
        parse_object(message)
    }
}

/// A call or reply as bytes, with its NUL.
///
/// # Errors
/// [`FrameError::Malformed`] where it does not serialise, which no call or reply does.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    // JSON has no raw NUL: control characters in strings are escaped.
    let mut bytes = serde_json::to_vec(message).map_err(|source| FrameError::Malformed { source })?;
    bytes.push(0);
    Ok(bytes)
}

/// Cuts a stream of bytes into messages, holding no more than one that is not whole.
#[derive(Debug)]
pub struct Framing {
    cap: usize,
    buffer: Vec<u8>,
    /// Where in the buffer the next message starts.
    start: usize,
    /// From where on no NUL has been looked for.
    searched: usize,
}

impl Framing {
    /// Messages of at most `cap` bytes, their NUL not counted.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self { cap, buffer: Vec::new(), start: 0, searched: 0 }
    }

    /// Takes in what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message without its NUL; `None` until there is one.
    ///
    /// # Errors
    /// [`FrameError::TooLong`]; nothing sensible can follow on the connection.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
        let end = unsearched.iter().position(|&b| b == 0).map(|at| self.searched + at);
        let length = end.unwrap_or(self.buffer.len()) - self.start;
        if length > self.cap {
            return Err(FrameError::TooLong { cap: self.cap });
        }
        let Some(end) = end else {
            self.searched = self.buffer.len();
            return Ok(None);
        };
        let message = self.buffer.get(self.start..end);
        self.start = end + 1;
        self.searched = self.start;
        Ok(message)
    }

    /// True where part of a message waits for its rest.
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        self.start < self.buffer.len()
    }
}

/// Reads an object. Serde alone would take a list of a struct's fields for the struct.
fn parse_object<T: DeserializeOwned>(message: &[u8]) -> Result<T, FrameError> {
    let read = match message.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice(message),
        _ => Err(serde::de::Error::custom("not an object")),
    };
    read.map_err(|source| FrameError::Malformed { source })
}

fn object_of<T: Serialize>(value: &T) -> Result<Map<String, Value>, FrameError> {
    let malformed = |source| FrameError::Malformed { source };
    match serde_json::to_value(value).map_err(malformed)? {
        Value::Object(map) => Ok(map),
        _ => Err(malformed(serde::ser::Error::custom("parameters are not an object"))),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(b: &bool) -> bool {
    !*b
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Map<String, Value>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

fn null_is_false<'de, D: serde::Deserializer<'de>>(d: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(framing: &mut Framing, chunks: &[&[u8]]) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut out = Vec::new();
        for chunk in chunks {
            framing.push(chunk);
            while let Some(m) = framing.next_message()? {
                out.push(m.to_vec());
            }
        }
        Ok(out)
    }

    #[test]
    fn a_message_of_exactly_the_cap_passes_and_one_byte_more_does_not() {
        let mut f = Framing::new(4);
        assert_eq!(cut(&mut f, &[b"abcd\0"]).unwrap(), [b"abcd"]);
        assert!(matches!(cut(&mut f, &[b"abcde"]), Err(FrameError::TooLong { cap: 4 })));
        let mut f = Framing::new(4);
        assert!(cut(&mut f, &[b"abcde\0"]).is_err());
    }

    #[test]
    fn nulls_stand_for_absent() {
        let c = Call::parse(br#"{"method":"a.b.C","parameters":null,"more":null,"x":1}"#).unwrap();
        assert_eq!(c, Call { method: "a.b.C".into(), ..Call::default() });
        assert_eq!(c.split(), ("a.b", "C"));
        let r = Reply::parse(b"{}").unwrap();
        assert_eq!(r, Reply::default());
    }

    #[test]
    fn a_call_is_written_as_varlink_wants_it() {
        let call = Call::of(&crate::method::ShowAlert { id: 7 }).unwrap();
        let text = encode(&call).unwrap();
        assert_eq!(text, b"{\"method\":\"org.guardd.Control.ShowAlert\",\"parameters\":{\"id\":7}}\0");
        let e = Reply::error(crate::error::Known::UnknownAlert { id: 7 });
        assert_eq!(
            encode(&e).unwrap(),
            b"{\"parameters\":{\"id\":7},\"error\":\"org.guardd.Control.UnknownAlert\"}\0"
        );
    }

    proptest! {
        /// However the bytes are torn, the same messages come out.
        #[test]
        fn tearing_changes_nothing(
            messages in prop::collection::vec(prop::collection::vec(1u8.., 0..40), 0..12),
            cuts in prop::collection::vec(0usize..500, 0..20),
        ) {
            let mut stream = Vec::new();
            for m in &messages { stream.extend_from_slice(m); stream.push(0); }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
            let mut f = Framing::new(64);
            prop_assert_eq!(cut(&mut f, &chunks).unwrap(), messages);
            prop_assert!(!f.is_mid_message());
        }

        /// Whatever comes, no panic, no message over the cap, and never more held than the cap and one read.
        #[test]
        fn hostile_bytes(chunks in prop::collection::vec(prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..50), 0..30), cap in 0usize..60) {
            let mut f = Framing::new(cap);
            'all: for chunk in &chunks {
                f.push(chunk);
                loop {
                    match f.next_message() {
                        Ok(Some(m)) => {
                            prop_assert!(m.len() <= cap && !m.contains(&0));
                            drop(Call::parse(m));
                            drop(Reply::parse(m));
                        }
                        Ok(None) => break,
                        Err(_) => break 'all,
                    }
                }
                prop_assert!(f.buffer.len() - f.start <= cap);
            }
        }

        /// Mutated real messages are read or refused, and what is read can be written again.
        #[test]
        fn mutated_messages(at in 0usize..200, byte: u8) {
            let call = br#"{"method":"org.guardd.Control.Lock","parameters":{"environment":"production","reason":"r"},"more":true}"#;
            let mut m = call.to_vec();
            let at = at % m.len();
            m[at] = byte;
            if let Ok(c) = Call::parse(&m) {
                let again = encode(&c).unwrap();
                prop_assert_eq!(Call::parse(&again[..again.len() - 1]).unwrap(), c);
            }
        }
    }
}

//! One client: calls in, replies out, with deadlines.

use std::time::Duration;

use guard_api::{CALL_CAP, Call, Known, Reply, encode};
use guard_sys::peer::Peer;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_util::codec::{AnyDelimiterCodec, FramedRead};

use super::methods::{self, Daemon};
use super::places::Seat;

/// A client that sends nothing for so long is let go.
const IDLE: Duration = Duration::from_secs(60);
/// How often a client that has ended its side is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A client that takes nothing for so long is let go.
const STALLED: Duration = Duration::from_secs(10);

/// The connection is over: the client left, stalled, or said what is no message.
#[derive(Debug)]
pub(crate) struct HungUp;

/// The way replies go.
pub(crate) struct Out {
    stream: OwnedWriteHalf,
    more: bool,
    oneway: bool,
    last: Last,
}

/// What becomes of a call's last reply.
enum Last {
    /// It goes out as it is given.
    Sent,
    /// It waits until the call is recorded.
    Waits(Option<Reply>),
}

impl Out {
    /// May several replies be sent?
    pub(crate) fn takes_more(&self) -> bool {
        self.more
    }

    /// Ends when the client is gone for good: one that has only ended its
    /// own side still wants its replies.
    pub(crate) async fn gone(&self) {
        let stream: &UnixStream = self.stream.as_ref();
        // Ready at once where calls wait or nothing more will come; then it is looked at now and then.
        while stream.readable().await.is_ok() && !guard_sys::peer::has_hung_up(stream) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A reply that is followed by others.
    pub(crate) async fn more<T: Serialize>(&mut self, parameters: &T) -> Result<(), HungUp> {
        match Reply::of(parameters) {
            Ok(reply) => self.send(&reply.and_more()).await,
            Err(e) => self.broken(&e),
        }
    }

    /// The last reply.
    pub(crate) async fn last<T: Serialize>(&mut self, parameters: &T) -> Result<(), HungUp> {
        match (Reply::of(parameters), &mut self.last) {
            (Ok(reply), Last::Sent) => self.send(&reply).await,
            (Ok(reply), Last::Waits(waiting)) => {
                *waiting = Some(reply);
                Ok(())
            }
            (Err(e), _) => self.broken(&e),
        }
    }

    /// From now on the last reply waits for [`Out::release_last`].
    pub(crate) fn hold_last(&mut self) {
        self.last = Last::Waits(None);
    }

    /// Sends the last reply where it waits.
    pub(crate) async fn release_last(&mut self) -> Result<(), HungUp> {
        match std::mem::replace(&mut self.last, Last::Sent) {
            Last::Waits(Some(reply)) => self.send(&reply).await,
            Last::Waits(None) | Last::Sent => Ok(()),
        }
    }

    pub(crate) async fn error(&mut self, error: Known) -> Result<(), HungUp> {
        self.last = Last::Sent;
        self.send(&Reply::error(error)).await
    }

    fn broken(&self, e: &dyn std::error::Error) -> Result<(), HungUp> {
        tracing::error!(error = %crate::failure::chain(e), "a reply has no form");
        Err(HungUp)
    }

    async fn send(&mut self, reply: &Reply) -> Result<(), HungUp> {
        if self.oneway {
            return Ok(());
        }
        let bytes = encode(reply).map_err(|_| HungUp)?;
        match timeout(STALLED, self.stream.write_all(&bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(HungUp),
        }
    }
}

/// Answers one client until it leaves, or has to.
pub(super) async fn talk(stream: UnixStream, peer: Peer, daemon: &Daemon, seat: &Seat) {
    let (read, write) = stream.into_split();
    let mut calls = calls(read);
    let mut out = Out { stream: write, more: false, oneway: false, last: Last::Sent };
    loop {
        let message = tokio::select! {
            // Whoever has asked is answered.
            biased;
            next = timeout(IDLE, calls.next()) => match next {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(_)) | None) | Err(_) => return,
            },
            () = seat.sent_away() => return,
        };
        seat.busy();
        let call = match Call::parse(&message) {
            Ok(call) => call,
            Err(e) => {
                tracing::debug!(error = %e, uid = peer.uid, "what came is no call");
                return;
            }
        };
        out.more = call.more;
        out.oneway = call.oneway;
        if methods::answer(daemon, &peer, &call, &mut out).await.is_err() {
            return;
        }
        seat.idle();
    }
}

fn calls(read: OwnedReadHalf) -> FramedRead<OwnedReadHalf, AnyDelimiterCodec> {
    FramedRead::new(read, AnyDelimiterCodec::new_with_max_length(b"\0".to_vec(), b"\0".to_vec(), CALL_CAP))
}

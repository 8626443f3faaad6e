//! The control server: Varlink on a Unix socket.
//!
//! Architecture invariant: a client can hold up nothing but its own
//! connection. Every connection is a task with a cap on message size, a
//! deadline for reading, one for writing, and a place among a limited number
//! (see [`places`]).

mod authorise;
mod backups;
mod connection;
mod deployments;
mod listener;
mod methods;
mod places;
mod reading;
mod streams;
mod validate;
mod values;

pub(crate) use authorise::Authority;
pub(crate) use listener::{BindError, Listener};
pub(crate) use methods::{Daemon, Describe, Reloader, Rules, own_name};
pub(crate) use values::Budgets;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::task::JoinSet;

use places::Places;

/// Serves until told to stop.
pub(crate) async fn serve(
    mut listener: Listener,
    daemon: Arc<Daemon>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) -> std::io::Result<()> {
    let places = Arc::<Places>::default();
    let mut clients = JoinSet::new();
    let mut look = tokio::time::interval(Duration::from_secs(2));
    loop {
        tokio::select! {
            _ = stop.changed() => break,
            _ = look.tick() => {
                // Somebody removed or replaced the socket file: nobody could reach us any more.
                if let Some(again) = listener.replaced() {
                    daemon.socket_was_lost();
                    listener = again;
                }
            }
            Some(_) = clients.join_next(), if !clients.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok(stream) => admit(stream, &daemon, &places, &mut clients),
                Err(e) if is_passing(&e) => {
                    tracing::warn!(error = %e, "a connection could not be accepted");
                    // EMFILE and the like: give the connections that are open time to end.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(e) => return Err(e),
            }
        }
    }
    clients.shutdown().await;
    Ok(())
}

/// accept(2): errors of one connection or of a moment, not of the listening socket.
fn is_passing(e: &std::io::Error) -> bool {
    !matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::NotConnected) && e.raw_os_error() != Some(9)
}

fn admit(stream: UnixStream, daemon: &Arc<Daemon>, places: &Arc<Places>, clients: &mut JoinSet<()>) {
    let peer = match guard_sys::peer::of(&stream) {
        Ok(peer) => peer,
        Err(e) => {
            tracing::warn!(error = %crate::failure::chain(&e), "a peer without credentials is not served");
            return;
        }
    };
    let is_owner = daemon.authority().is_owner(&peer);
    let Some(seat) = places.take(peer.uid, is_owner) else {
        tracing::warn!(uid = peer.uid, "a connection is refused: all places are taken and busy");
        return;
    };
    let daemon = Arc::clone(daemon);
    clients.spawn(async move { connection::talk(stream, peer, &daemon, &seat).await });
}

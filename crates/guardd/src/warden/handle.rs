//! A warden as others have it: something that takes messages, and answers when it is asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use guard_api::Known;
use guard_watch::EnvId;
use tokio::sync::oneshot::{self, Receiver};

use super::commands::Reply;
use super::{Command, Message};
use crate::operations::Work;

/// A way to talk to a warden.
#[derive(Clone)]
pub(crate) struct WardenHandle {
    pub(crate) name: String,
    pub(crate) id: EnvId,
    pub(crate) root: PathBuf,
    pub(super) sender: Sender<Message>,
    pub(super) observing: Arc<Work>,
}

impl WardenHandle {
    /// A number that moves as long as the observer reads.
    pub(crate) fn pulse(&self) -> u64 {
        self.observing.pulse()
    }

    /// False where the warden has ended.
    pub(crate) fn send(&self, message: Message) -> bool {
        self.sender.send(message).is_ok()
    }

    /// Asks it and waits for its answer.
    pub(crate) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Known> {
        let answer = put(&self.sender, command).ok_or_else(|| self.gone())?;
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Asks it on a thread that may wait.
    pub(crate) fn ask_and_wait<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Known> {
        let answer = put(&self.sender, command).ok_or_else(|| self.gone())?;
        answer.blocking_recv().unwrap_or_else(|_| Err(self.gone()))
    }

    fn gone(&self) -> Known {
        Known::Failed {
            message: format!("environment {} is not being guarded any more", self.name),
            hint: Some("look at the daemon's journal".to_owned()),
        }
    }
}

/// Puts a question to a warden; `None` where it has ended.
pub(crate) fn put<T>(
    warden: &Sender<Message>,
    command: impl FnOnce(Reply<T>) -> Command,
) -> Option<Receiver<Result<T, Known>>> {
    let (reply, answer) = oneshot::channel();
    warden.send(Message::Command(Box::new(command(reply)))).ok()?;
    Some(answer)
}

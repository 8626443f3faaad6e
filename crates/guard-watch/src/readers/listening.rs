//! The thread that hears of reads, until it is told to stop.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};

/// It ends with this.
#[derive(Debug)]
pub(super) struct Listening {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    /// `run` ends as soon as what it gets has something to read.
    pub(super) fn start(run: impl FnOnce(Arc<OwnedFd>) + Send + 'static) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let own = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("readers".to_owned()).spawn(move || run(own))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends the thread, and waits for its end.
    pub(super) fn end(&mut self) {
        // It fails only where its counter is full, which is a request to stop as well.
        rustix::io::write(&self.stop, &1u64.to_ne_bytes()).ok();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that hears of reads had panicked");
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.end();
    }
}

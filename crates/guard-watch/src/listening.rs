//! A thread that waits for something, until it is told to stop.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};

/// It ends with this.
#[derive(Debug)]
pub(crate) struct Listening {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    /// `run` ends as soon as what it gets has something to read. `name` is the thread's.
    pub(crate) fn start(
        name: &'static str,
        run: impl FnOnce(Arc<OwnedFd>) + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let own = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(own))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends the thread, and waits for its end.
    pub(crate) fn end(&mut self) {
        // It fails only where its counter is full, which is a request to stop as well.
        rustix::io::write(&self.stop, &1u64.to_ne_bytes()).ok();
        if let Some(thread) = self.thread.take() {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                tracing::error!(name, "a thread that hears the kernel had panicked");
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.end();
    }
}

//! One sink's thread: the next record, its pieces, the next record.

use std::sync::Arc;
use std::time::Duration;

use guard_model::ledger::Record;

use crate::bell::Bell;
use crate::cursor::Cursor;
use crate::error::OutletError;
use crate::feed::{Behind, Feed};
use crate::health::{SinkHealth, Status, Turn};
use crate::outlet::Outlet;
use crate::render::Renderer;

/// Who is told that a sink fails or works again.
pub(crate) type OnHealth = Arc<dyn Fn(SinkHealth) + Send + Sync>;

/// How a sink tries again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// The pause after the first failure; each further one is twice as long.
    pub(crate) first: Duration,
    /// No pause is longer.
    pub(crate) longest: Duration,
    /// Failures are told once they have gone on this long.
    pub(crate) grace: Duration,
}

/// A sink with everything that its thread needs.
pub(crate) struct Worker<O> {
    pub(crate) outlet: O,
    pub(crate) feed: Arc<Feed>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) status: Arc<Status>,
    pub(crate) cursor: Cursor,
    pub(crate) patience: Patience,
    pub(crate) on_health: OnHealth,
}

/// Whether to go on.
#[derive(Debug, PartialEq, Eq)]
enum Flow {
    On,
    Over,
}

impl<O: Outlet> Worker<O> {
    /// Pieces between two times that what was delivered is brought to the disk.
    const SETTLE_EVERY: usize = 256;
    /// Looks for records at least this often, whether the bell rang or not.
    const GLANCE: Duration = Duration::from_secs(30);

    pub(crate) fn run(mut self) {
        self.warm_up();
        let mut behind = Behind::default();
        // Once at the start, whatever there is: it makes the log files.
        let mut unsettled = 1;
        loop {
            if self.bell.take_reopen() {
                self.outlet.reopen();
            }
            if let Some(record) = self.bell.next_undurable() {
                if self.deliver_undurable(&record) == Flow::Over {
                    return;
                }
                continue;
            }
            let next = self.feed.after(self.cursor.delivered().seq, &mut behind);
            let Some(record) = next.filter(|_| !self.bell.is_over()) else {
                unsettled = self.settle(unsettled);
                if self.bell.is_stopping() {
                    return;
                }
                self.bell.wait(if unsettled == 0 { Self::GLANCE } else { self.patience.longest });
                continue;
            };
            match self.deliver(&record) {
                Some(pieces) => unsettled += pieces,
                None => return,
            }
            if unsettled >= Self::SETTLE_EVERY {
                unsettled = self.settle(unsettled);
            }
        }
    }

    /// Shows the outlet the records before the first one to deliver, so that it
    /// goes on as if it had never stopped.
    fn warm_up(&mut self) {
        let done = self.cursor.delivered().seq;
        for record in self.feed.read_from(done.saturating_sub(Renderer::WARM_UP).saturating_add(1)) {
            match record {
                Ok(record) if record.seq <= done => drop(self.outlet.pieces(&record)),
                Ok(_) => return,
                Err(_) => {}
            }
        }
    }

    /// Delivers a record and returns how many pieces it had; `None` where it is over.
    fn deliver(&mut self, record: &Record) -> Option<usize> {
        let pieces = self.outlet.pieces(record);
        let done = self.cursor.delivered().pieces;
        for (n, piece) in (1u64..).zip(&pieces).filter(|(n, _)| *n > done) {
            if self.insist(piece) == Flow::Over {
                return None;
            }
            self.cursor.piece(n);
        }
        if pieces.is_empty() {
            self.cursor.record(record.seq);
        } else {
            self.cursor.record_kept(record.seq);
        }
        self.status.delivered(record.seq);
        Some(pieces.len())
    }

    fn deliver_undurable(&mut self, record: &Record) -> Flow {
        for piece in self.outlet.undurable(record) {
            if self.insist(&piece) == Flow::Over {
                return Flow::Over;
            }
        }
        Flow::On
    }

    /// Delivers one piece, however often it takes.
    fn insist(&mut self, piece: &O::Piece) -> Flow {
        let mut pause = self.patience.first;
        loop {
            self.status.begin();
            match self.outlet.deliver(piece) {
                Ok(()) => {
                    let turn = self.status.succeeded();
                    self.status
                        .complain(self.cursor.error().map(|e| format!("its place cannot be kept: {e}")));
                    self.tell(turn);
                    return Flow::On;
                }
                Err(OutletError::Stopping) => return Flow::Over,
                Err(error) => {
                    let words = error.in_words();
                    tracing::debug!(
                        sink = self.status.name(),
                        error = words,
                        "a sink does not take an entry"
                    );
                    let turn = self.status.failed(words, self.patience.grace);
                    self.tell(turn);
                }
            }
            self.bell.pause(pause);
            if self.bell.is_over() {
                return Flow::Over;
            }
            if self.bell.take_reopen() {
                self.outlet.reopen();
            }
            pause = (pause * 2).min(self.patience.longest);
        }
    }

    /// Brings `pieces` to the disk and keeps the place; returns how many are not there yet.
    fn settle(&mut self, pieces: usize) -> usize {
        if pieces > 0 {
            self.status.begin();
            if let Err(error) = self.outlet.settle() {
                let turn = self.status.failed(error.in_words(), self.patience.grace);
                self.tell(turn);
                return pieces;
            }
            let turn = self.status.succeeded();
            self.tell(turn);
        }
        self.cursor.settle();
        0
    }

    fn tell(&self, turn: Option<Turn>) {
        if turn.is_some() {
            (self.on_health)(self.status.health(self.feed.head()));
        }
    }
}

//! What a sink must be able to do.

use guard_model::ledger::Record;

use crate::error::OutletError;

/// A way out. It may block, and fail, as it likes: it has a thread of its own.
pub(crate) trait Outlet: Send + 'static {
    /// The smallest thing that is delivered whole, such as a line.
    type Piece;

    /// What a durable record makes, in order: the same pieces each time it is
    /// asked after the same records, so that delivery goes on in the middle of one.
    fn pieces(&mut self, record: &Record) -> Vec<Self::Piece>;

    /// What a record makes that is not in the ledger yet, marked as such. It
    /// leaves no trace: the record comes again.
    fn undurable(&self, record: &Record) -> Vec<Self::Piece>;

    /// Delivers one piece. After an error the same piece is tried again.
    fn deliver(&mut self, piece: &Self::Piece) -> Result<(), OutletError>;

    /// Brings what was delivered onto the disk, where that is ours to do.
    fn settle(&mut self) -> Result<(), OutletError> {
        Ok(())
    }

    /// Opens anew what it holds open.
    fn reopen(&mut self) {}
}

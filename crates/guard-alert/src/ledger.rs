//! The ledger as a source of records.

use guard_store::LedgerHandle;

use crate::feed::{Records, Source, SourceError};

impl Source for LedgerHandle {
    fn head(&self) -> u64 {
        Self::head(self).seq
    }

    fn read_from(&self, seq: u64) -> Records {
        Box::new(Self::read_from(self, seq).map(|record| record.map_err(SourceError::from)))
    }

    fn on_commit(&self, hook: Box<dyn Fn() + Send>) {
        Self::on_commit(self, move |_| hook());
    }
}

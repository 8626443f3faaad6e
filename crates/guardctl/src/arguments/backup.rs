//! What can be done with backups.

use std::path::PathBuf;

use clap::Subcommand;

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Make the recovery key: backups open with it when this host is gone
    ///
    /// Prints the key once, in the format of age-keygen; guardd keeps only its public half. Keep it off this host. Backups
    /// made before do not open with it: make one afterwards.
    #[command(
        after_help = "Examples:\n  guardctl backup init\n  (umask 077; guardctl backup init > /media/usb/guardd-recovery.key)"
    )]
    Init {
        /// Although there is a recovery key already; it goes on opening what was backed up so far
        #[arg(long)]
        anyway: bool,
    },
    /// Back up the tree as it stands now
    ///
    /// What an earlier backup holds is not read again and not stored again. The last ten and the pinned ones are kept, unless
    /// configured otherwise.
    #[command(
        after_help = "Examples:\n  guardctl backup create production\n  guardctl backup create production --note 'before the database move'"
    )]
    Create {
        /// The environment
        #[arg(value_name = "ENV")]
        environment: Option<String>,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// The backups that are kept, oldest first
    #[command(
        after_help = "Examples:\n  guardctl backup list\n  guardctl backup list production --json | jq -r '.backups[-1].id'"
    )]
    List {
        /// Only this environment's
        #[arg(value_name = "ENV")]
        environment: Option<String>,
    },
    /// Decrypt a backup and compare every byte with what was signed
    ///
    /// The newest, unless one is named. Exit code 1 where anything is wrong with it.
    #[command(
        after_help = "Examples:\n  guardctl backup verify production\n  guardctl backup verify production 12\n  guardctl backup verify production --all"
    )]
    Verify {
        /// The environment
        #[arg(value_name = "ENV")]
        environment: Option<String>,
        /// This backup, or its number
        #[arg(value_name = "ID", conflicts_with = "all")]
        id: Option<String>,
        /// Every backup
        #[arg(long)]
        all: bool,
    },
    /// Restore a backup into a private directory, compare it there, and remove it
    ///
    /// Modes, owners, times and extended attributes are compared, too. `guardctl status` shows the last that was good. The
    /// newest, unless one is named. Exit code 1 where anything is wrong with it.
    #[command(
        after_help = "Examples:\n  guardctl backup drill production\n  guardctl backup drill production 12"
    )]
    Drill {
        /// The environment
        #[arg(value_name = "ENV")]
        environment: Option<String>,
        /// This backup, or its number
        #[arg(value_name = "ID")]
        id: Option<String>,
    },
    /// Write a backup to one file, to be kept elsewhere
    ///
    /// A tar archive of the encrypted files; it opens with tar, age and zstd. The newest, unless one is named.
    #[command(
        after_help = "Examples:\n  guardctl backup export production --to /mnt/offsite/production.tar\n  guardctl backup export production | ssh vault 'cat > production.tar'"
    )]
    Export {
        /// The environment
        #[arg(value_name = "ENV")]
        environment: Option<String>,
        /// This backup, or its number
        #[arg(value_name = "ID")]
        id: Option<String>,
        /// Write it to this new file, instead of standard output
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Remove backups beyond the last ones; pinned ones stay
    ///
    /// guardd does it by itself after each backup. Nothing goes before the newest has been verified.
    #[command(
        after_help = "Examples:\n  guardctl backup prune production\n  guardctl backup prune production --keep 3"
    )]
    Prune {
        /// The environment
        #[arg(value_name = "ENV")]
        environment: Option<String>,
        /// How many stay, instead of what is configured
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        keep: Option<u64>,
    },
    /// Keep a backup until it is unpinned
    #[command(after_help = "Examples:\n  guardctl backup pin production 12")]
    Pin {
        /// The backup or its number; the environment may stand before it
        #[arg(value_name = "ID", required = true, num_args = 1..=2)]
        place: Vec<String>,
    },
    /// Let a pinned backup go when its time comes
    #[command(after_help = "Examples:\n  guardctl backup unpin production 12")]
    Unpin {
        /// The backup or its number; the environment may stand before it
        #[arg(value_name = "ID", required = true, num_args = 1..=2)]
        place: Vec<String>,
    },
}

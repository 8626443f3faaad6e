//! A git that is asked question after question, both its pipes in use at once.

use std::io::{Read, Write};
use std::process::Stdio;

use crate::error::GitError;
use crate::git::Git;

impl Git {
    /// Writes all of `questions` from a thread while `read` takes the answers.
    ///
    /// # Errors
    /// [`GitError::Run`], and whatever `read` makes of the answers.
    pub(crate) fn converse<T>(
        &self,
        name: &'static str,
        arguments: &[&str],
        questions: Vec<u8>,
        read: impl FnOnce(&mut dyn Read) -> Result<T, GitError>,
    ) -> Result<T, GitError> {
        let failed = |source| GitError::Run { command: name.to_owned(), source };
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(failed)?;
        let gone = || std::io::Error::other("its pipes are gone");
        let mut input = child.stdin.take().ok_or_else(|| failed(gone()))?;
        let mut output = child.stdout.take().ok_or_else(|| failed(gone()))?;
        let answer = std::thread::scope(|scope| {
            scope.spawn(move || {
                // A git that ended early says so by what it answered.
                input.write_all(&questions).ok();
            });
            let answer = read(&mut output);
            if answer.is_err() {
                child.kill().ok();
            }
            drop(output);
            answer
        });
        child.wait().map_err(failed)?;
        answer
    }
}

//! A copy of the program where the job sees it, for the time of a test.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A private directory in the home directory, with the program in it; dropping it removes both.
pub(super) struct HomeCopy {
    directory: PathBuf,
    program: PathBuf,
}

impl HomeCopy {
    /// Copies the running program. `id` makes the directory's name a new one.
    ///
    /// # Errors
    /// No `$HOME`, or a file operation's.
    pub(super) fn make(id: &str) -> io::Result<Self> {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        let home = home.ok_or_else(|| io::Error::other("HOME is not set"))?;
        let directory = Path::new(&home).join(format!(".vscode-shell-proxy-self-test-{id}"));
        DirBuilder::new().mode(0o700).create(&directory)?;
        let program = directory.join(env!("CARGO_PKG_NAME"));
        let copy = Self { directory, program };
        let mut from = File::open("/proc/self/exe")?;
        let mut to = OpenOptions::new();
        let mut to = to
            .write(true)
            .create_new(true)
            .mode(0o700)
            .open(&copy.program)?;
        io::copy(&mut from, &mut to)?;
        // Another node asks the file server, which has to have it by then.
        to.sync_all()?;
        Ok(copy)
    }

    /// Where the copy is.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }
}

impl Drop for HomeCopy {
    fn drop(&mut self) {
        // What cannot be removed is a file in the user's own home directory, named after its maker.
        let _ = fs::remove_file(&self.program);
        let _ = fs::remove_dir(&self.directory);
    }
}

//! A directory for what this user alone may change: programs that are executed from it.
//!
//! It is ours, with mode 0700. Its path is walked with care (see [`private_path`]), and nobody but us
//! and root may be able to put something else in its place: every directory on the way is ours or
//! root's, and written by others only where its sticky bit keeps them from replacing what is not
//! theirs.
//!
//! [`private_path`]: super::private_path

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstat, mkdirat};
use nix::unistd::geteuid;

use super::private_path::{OpenError, Place, Reason, look, others_can_write, walk};

const OURS_ALONE: Mode = Mode::S_IRWXU;

/// Opens the directory `name` in the directory `base`; each is made with mode 0700 where there is
/// none.
///
/// # Errors
/// It is not one that is ours alone, or the system refuses; see [`Reason`].
pub fn open(base: &Path, name: &str) -> Result<OwnedFd, OpenError> {
    let base_at = walk(base, enter)
        .and_then(|place| or_made(&place))
        .map_err(|reason| OpenError::new(base, reason))?;
    let path = base.join(name);
    open_in(&base_at, Path::new(name)).map_err(|reason| OpenError::new(&path, reason))
}

fn enter(name: &Path, stat: &FileStat) -> Result<(), Reason> {
    let is_theirs = stat.st_uid != 0 && stat.st_uid != geteuid().as_raw();
    let is_sticky = stat.st_mode & libc::S_ISVTX != 0;
    match is_theirs || (others_can_write(stat) && !is_sticky) {
        true => Err(Reason::Shared(name.into())),
        false => Ok(()),
    }
}

/// The directory at this place, which nobody else can replace things in.
fn or_made(place: &Place) -> Result<OwnedFd, Reason> {
    let made;
    let entry = match &place.entry {
        Some((entry, _)) => entry.as_fd(),
        None => {
            made = make(&place.directory, &place.name)?;
            made.as_fd()
        }
    };
    let directory = list(entry, Path::new("."))?;
    enter(&place.name, &fstat(&directory)?)?;
    Ok(directory)
}

fn open_in(base: &OwnedFd, name: &Path) -> Result<OwnedFd, Reason> {
    let directory = match list(base, name) {
        Err(Errno::ENOENT) => list(make(base, name)?, Path::new("."))?,
        opened => opened?,
    };
    let stat = fstat(&directory)?;
    let mode = stat.st_mode & 0o7777;
    match stat.st_uid == geteuid().as_raw() {
        false => Err(Reason::Foreign(stat.st_uid)),
        true if mode & !libc::S_ISGID != OURS_ALONE.bits() => Err(Reason::Wide(mode)),
        true => Ok(directory),
    }
}

/// A new directory, or the one that somebody has made a moment before.
fn make(directory: &OwnedFd, name: &Path) -> Result<OwnedFd, Errno> {
    match mkdirat(directory, name, OURS_ALONE) {
        Ok(()) | Err(Errno::EEXIST) => look(directory, name),
        Err(errno) => Err(errno),
    }
}

fn list(directory: impl AsFd, name: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
    use std::path::PathBuf;

    /// A directory of ours alone, and one below it.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let own = tempfile::tempdir().unwrap();
        let base = own.path().join("cache");
        (own, base)
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[track_caller]
    fn refused(base: &Path) -> String {
        open(base, "x").expect_err("refused").to_string()
    }

    #[test]
    fn what_is_missing_is_made_for_us_alone_and_used_again() {
        let (_own, base) = place();
        for _ in 0..2 {
            let directory = open(&base, "x").unwrap();
            let stat = fstat(&directory).unwrap();
            assert_eq!(stat.st_ino, fs::metadata(base.join("x")).unwrap().ino());
            for path in [&base, &base.join("x")] {
                assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700);
            }
        }
        let beyond = base.join("no/such");
        assert_eq!(
            refused(&beyond),
            format!(
                "cannot open {}: No such file or directory",
                beyond.display()
            )
        );
    }

    #[test]
    fn a_directory_that_others_see_into_is_refused() {
        let (_own, base) = place();
        open(&base, "x").unwrap();
        for mode in [0o755, 0o710, 0o701, 0o1700] {
            chmod(&base.join("x"), mode);
            let end = format!("it has mode {mode:04o}, not 0700");
            assert!(refused(&base).ends_with(&end));
        }
        // A mark of the directory above that new ones inherit.
        chmod(&base.join("x"), 0o2700);
        open(&base, "x").unwrap();
    }

    #[test]
    fn a_link_or_a_file_in_its_place_is_refused() {
        let (own, base) = place();
        let elsewhere = own.path().join("elsewhere");
        for path in [&base, &elsewhere] {
            fs::create_dir(path).unwrap();
        }
        symlink(&elsewhere, base.join("x")).unwrap();
        assert!(refused(&base).ends_with("Not a directory"));
        fs::remove_file(base.join("x")).unwrap();
        fs::write(base.join("x"), "").unwrap();
        assert!(refused(&base).ends_with("Not a directory"));
    }

    #[test]
    fn nobody_else_can_replace_it() {
        let (own, base) = place();
        fs::create_dir(&base).unwrap();
        // Not the cache itself, nor what leads there.
        for path in [base.as_path(), own.path()] {
            chmod(path, 0o770);
            let name = path.file_name().unwrap().to_string_lossy();
            assert!(refused(&base).ends_with(&format!("others can write {name}")));
            chmod(path, 0o1777);
            open(&base, "x").unwrap();
            chmod(path, 0o755);
        }
        if geteuid().is_root() {
            chown(own.path(), Some(12345), None).unwrap();
            assert!(refused(&base).contains("others can write"));
            chown(own.path(), Some(0), None).unwrap();
            chown(base.join("x"), Some(12345), None).unwrap();
            assert!(refused(&base).ends_with("it belongs to uid 12345, not to this user"));
        }
    }

    #[test]
    fn a_link_of_ours_may_lead_there() {
        let (own, base) = place();
        fs::create_dir(own.path().join("scratch")).unwrap();
        symlink("scratch", &base).unwrap();
        open(&base, "x").unwrap();
        assert!(own.path().join("scratch/x").is_dir());
    }
}

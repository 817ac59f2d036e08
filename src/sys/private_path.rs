//! A path that has to be this user's own, walked one component at a time: each is opened relative to
//! the one before without following it, so that what was looked at is what is used. A symbolic link
//! counts only where nobody else could have put it, which is in a directory of ours or of root that
//! no other user can write.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::unistd::geteuid;

/// Symbolic links that a path may lead through, as in the kernel (`MAXSYMLINKS`).
const MOST_LINKS: u32 = 40;

/// Why a path cannot be used, as one line that names it.
#[derive(Debug)]
pub struct OpenError {
    path: PathBuf,
    reason: Reason,
}

/// The reason alone.
#[derive(Debug, PartialEq, Eq)]
pub enum Reason {
    /// The system refused.
    System(Errno),
    /// It is something else than a regular file, named here.
    NotRegular(&'static str),
    /// It belongs to this user.
    Foreign(u32),
    /// This component is a symbolic link that anybody could have put there.
    Link(OsString),
    /// It may be any file of ours: it has a second name, and this one anybody could have made.
    SecondName,
    /// What is in this directory, others can replace.
    Shared(OsString),
    /// It has this mode, by which others than the user see into it.
    Wide(u32),
}

impl OpenError {
    pub(super) fn new(path: &Path, reason: Reason) -> Self {
        Self {
            path: path.to_owned(),
            reason,
        }
    }

    /// The reason alone.
    pub fn reason(&self) -> &Reason {
        &self.reason
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot open {}: ", self.path.display())?;
        match &self.reason {
            Reason::System(errno) => f.write_str(errno.desc()),
            Reason::NotRegular(kind) => write!(f, "it is {kind}, not a regular file"),
            Reason::Foreign(uid) => write!(f, "it belongs to uid {uid}, not to this user"),
            Reason::Link(name) => write!(
                f,
                "{} is a symbolic link in a directory that others can write",
                name.display()
            ),
            Reason::SecondName => {
                f.write_str("it has a second name, and its directory others can write")
            }
            Reason::Shared(name) => write!(f, "others can write {}", name.display()),
            Reason::Wide(mode) => write!(f, "it has mode {mode:04o}, not 0700"),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<Errno> for Reason {
    fn from(errno: Errno) -> Reason {
        Reason::System(errno)
    }
}

/// Where a path leads to.
pub(super) struct Place {
    /// The directory of its last component.
    pub(super) directory: OwnedFd,
    /// That component's name there.
    pub(super) name: PathBuf,
    /// What has this name, and is no symbolic link; not opened for use.
    pub(super) entry: Option<(OwnedFd, FileStat)>,
}

/// Walks along `path`. `enter` judges each directory on the way, but for the one that relative paths
/// begin at.
pub(super) fn walk(
    path: &Path,
    enter: fn(&Path, &FileStat) -> Result<(), Reason>,
) -> Result<Place, Reason> {
    let mut links = 0;
    let mut directory = look(AT_FDCWD, Path::new("."))?;
    let mut ahead = steps(path).collect::<VecDeque<_>>();
    while let Some(step) = ahead.pop_front() {
        let is_last = ahead.is_empty();
        let entry = match look(&directory, &step) {
            Err(Errno::ENOENT) if is_last => {
                return Ok(Place {
                    directory,
                    name: step,
                    entry: None,
                });
            }
            entry => entry?,
        };
        let stat = fstat(&entry)?;
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFLNK => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::ELOOP.into());
                }
                if others_can_write(&fstat(&directory)?) {
                    return Err(Reason::Link(step.into_os_string()));
                }
                let target = PathBuf::from(readlinkat(&entry, "")?);
                for step in steps(&target).collect::<Vec<_>>().into_iter().rev() {
                    ahead.push_front(step);
                }
            }
            libc::S_IFDIR if !is_last => {
                enter(&step, &stat)?;
                directory = entry;
            }
            _ if !is_last => return Err(Errno::ENOTDIR.into()),
            _ => {
                return Ok(Place {
                    directory,
                    name: step,
                    entry: Some((entry, stat)),
                });
            }
        }
    }
    // Only an empty path, or a link with an empty target, has no last component.
    Err(Errno::ENOENT.into())
}

/// The components of a path. One that begins with `/` leads there from wherever it is met.
fn steps(path: &Path) -> impl Iterator<Item = PathBuf> {
    path.components()
        .map(|step: Component<'_>| PathBuf::from(step.as_os_str()))
}

/// The entry itself, whatever it is, without opening it for use.
pub(super) fn look(directory: impl AsFd, step: &Path) -> Result<OwnedFd, Errno> {
    openat(
        directory,
        step,
        OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

/// Can anybody but us and root change this directory's entries? An access list that lets somebody
/// write shows in the group's bits.
pub(super) fn others_can_write(directory: &FileStat) -> bool {
    let owner = directory.st_uid;
    (owner != 0 && owner != geteuid().as_raw()) || directory.st_mode & 0o022 != 0
}

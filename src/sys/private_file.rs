//! Files for secrets: the log and the copies of the streams hold a session's tokens.
//!
//! Such a file is created with mode 0600 or appended to, and has to be a regular file of ours.
//! Its path is walked one component at a time, each opened relative to the one before without
//! following it, so that what was looked at is what is used: a symbolic link counts only where
//! nobody else could have put it, which is in a directory of ours or of root that no other user
//! can write. In `/tmp` and the like neither a link nor a second name of some other file is
//! written through.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fchmod, fstat};
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
}

impl OpenError {
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
        }
    }
}

impl std::error::Error for OpenError {}

impl From<Errno> for Reason {
    fn from(errno: Errno) -> Reason {
        Reason::System(errno)
    }
}

/// Opens `path` for appending: created with mode 0600, or ours already and narrowed to that.
///
/// # Errors
/// The path is not one that secrets may be written to, or the system refuses; see [`Reason`].
pub fn open(path: &Path) -> Result<File, OpenError> {
    walk(path).map_err(|reason| OpenError {
        path: path.to_owned(),
        reason,
    })
}

fn walk(path: &Path) -> Result<File, Reason> {
    let mut links = 0;
    let mut directory = look(AT_FDCWD, Path::new("."))?;
    let mut ahead = steps(path).collect::<VecDeque<_>>();
    while let Some(step) = ahead.pop_front() {
        let is_last = ahead.is_empty();
        let entry = match look(&directory, &step) {
            Err(Errno::ENOENT) if is_last => match create(&directory, &step) {
                // Somebody was faster. The kernel gives no such answer for a link that leads
                // nowhere: `look` saw that one.
                Err(Errno::EEXIST) => look(&directory, &step)?,
                created => return Ok(created?),
            },
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
            libc::S_IFDIR if !is_last => directory = entry,
            _ if !is_last => return Err(Errno::ENOTDIR.into()),
            _ => return append(&directory, &step, &stat),
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
fn look(directory: impl AsFd, step: &Path) -> Result<OwnedFd, Errno> {
    openat(
        directory,
        step,
        OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

/// Neither a FIFO nor a terminal that comes in between can hold us up or become ours.
const FOR_APPENDING: OFlag = OFlag::O_WRONLY
    .union(OFlag::O_APPEND)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY)
    .union(OFlag::O_CLOEXEC);

const OURS_ALONE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

fn create(directory: &OwnedFd, name: &Path) -> Result<File, Errno> {
    let flags = FOR_APPENDING | OFlag::O_CREAT | OFlag::O_EXCL;
    narrow(openat(directory, name, flags, OURS_ALONE)?)
}

/// Some filesystems have their own idea of a new file's mode.
fn narrow(file: OwnedFd) -> Result<File, Errno> {
    if fstat(&file)?.st_mode & 0o7777 & !OURS_ALONE.bits() != 0 {
        fchmod(&file, OURS_ALONE)?;
    }
    Ok(File::from(file))
}

/// Opens an existing file, if it is what it has to be, before and after.
fn append(directory: &OwnedFd, name: &Path, seen: &FileStat) -> Result<File, Reason> {
    let shared = others_can_write(&fstat(directory)?);
    judge(seen, shared)?;
    let file = openat(directory, name, FOR_APPENDING, Mode::empty())?;
    judge(&fstat(&file)?, shared)?;
    Ok(narrow(file)?)
}

fn judge(stat: &FileStat, shared: bool) -> Result<(), Reason> {
    let kind = match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => None,
        libc::S_IFDIR => Some("a directory"),
        libc::S_IFIFO => Some("a FIFO"),
        libc::S_IFSOCK => Some("a socket"),
        libc::S_IFLNK => Some("a symbolic link"),
        _ => Some("a device"),
    };
    if let Some(kind) = kind {
        return Err(Reason::NotRegular(kind));
    }
    if stat.st_uid != geteuid().as_raw() {
        return Err(Reason::Foreign(stat.st_uid));
    }
    if shared && stat.st_nlink > 1 {
        return Err(Reason::SecondName);
    }
    Ok(())
}

/// Can anybody but us and root change this directory's entries? An access list that lets somebody
/// write shows in the group's bits.
fn others_can_write(directory: &FileStat) -> bool {
    let owner = directory.st_uid;
    (owner != 0 && owner != geteuid().as_raw()) || directory.st_mode & 0o022 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use nix::unistd::mkfifo;

    struct Place {
        /// A directory of ours alone.
        own: tempfile::TempDir,
        /// One below it that everybody can write, with the sticky bit, as /tmp.
        shared: PathBuf,
    }

    fn place() -> Place {
        let own = tempfile::tempdir().unwrap();
        let shared = own.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, Permissions::from_mode(0o1777)).unwrap();
        Place { own, shared }
    }

    #[track_caller]
    fn refused(path: &Path) -> Reason {
        open(path).expect_err("refused").reason
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_new_file_is_ours_alone_and_not_inherited() {
        let place = place();
        for path in [place.own.path().join("log"), place.shared.join("log")] {
            let file = open(&path).unwrap();
            assert_eq!(mode(&path) & !0o600, 0);
            let flags = FdFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFD).unwrap());
            assert!(flags.contains(FdFlag::FD_CLOEXEC));
        }
    }

    #[test]
    fn an_existing_file_is_narrowed_and_appended_to_by_all_its_writers() {
        let place = place();
        for path in [place.own.path().join("log"), place.shared.join("log")] {
            fs::write(&path, "old\n").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o664)).unwrap();
            let (mut one, mut two) = (open(&path).unwrap(), open(&path).unwrap());
            assert_eq!(mode(&path), 0o600);
            one.write_all(b"one\n").unwrap();
            two.write_all(b"two\n").unwrap();
            one.write_all(b"three\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "old\none\ntwo\nthree\n");
        }
    }

    #[test]
    fn a_relative_path_starts_here_and_dots_are_dots() {
        let place = place();
        let path = place.own.path().join("shared/.././shared/../log");
        open(&path).unwrap();
        assert!(place.own.path().join("log").exists());
        // The crate's directory is where tests run.
        assert_eq!(refused(Path::new("src")), Reason::NotRegular("a directory"));
        assert_eq!(
            refused(Path::new("src/..")),
            Reason::NotRegular("a directory")
        );
        assert_eq!(
            refused(Path::new("Cargo.toml/x")),
            Reason::System(Errno::ENOTDIR)
        );
        assert_eq!(refused(Path::new("no/such")), Reason::System(Errno::ENOENT));
        assert_eq!(refused(Path::new("")), Reason::System(Errno::ENOENT));
        assert_eq!(refused(Path::new("/")), Reason::NotRegular("a directory"));
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let place = place();
        let fifo = place.own.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        assert_eq!(refused(&fifo), Reason::NotRegular("a FIFO"));
        let socket = place.own.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(refused(&socket), Reason::NotRegular("a socket"));
        assert_eq!(
            refused(Path::new("/dev/null")),
            Reason::NotRegular("a device")
        );
        assert_eq!(
            open(Path::new("/dev/null")).unwrap_err().to_string(),
            "cannot open /dev/null: it is a device, not a regular file"
        );
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() {
        let place = place();
        let mut path = PathBuf::from("/etc/passwd");
        if geteuid().is_root() {
            path = place.own.path().join("theirs");
            fs::write(&path, "").unwrap();
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        }
        let owner = fs::metadata(&path).unwrap().uid();
        assert_eq!(refused(&path), Reason::Foreign(owner));
    }

    #[test]
    fn a_link_is_followed_only_where_nobody_else_could_have_put_it() {
        let place = place();
        let target = place.own.path().join("target");
        let (trusted, planted) = (place.own.path().join("link"), place.shared.join("link"));
        symlink("target", &trusted).unwrap();
        symlink(&target, &planted).unwrap();
        assert_eq!(refused(&planted), Reason::Link("link".into()));
        assert!(!target.exists(), "not even created");
        open(&trusted).unwrap();
        assert_eq!(mode(&target) & !0o600, 0);
        assert_eq!(refused(&planted), Reason::Link("link".into()));

        // The same for a link in the middle, and for one that a trusted link leads to.
        symlink(place.own.path(), place.shared.join("up")).unwrap();
        assert_eq!(
            refused(&place.shared.join("up/target")),
            Reason::Link("up".into())
        );
        symlink("shared/link", place.own.path().join("indirect")).unwrap();
        assert_eq!(
            refused(&place.own.path().join("indirect")),
            Reason::Link("link".into())
        );
        symlink("shared", place.own.path().join("directory")).unwrap();
        open(&place.own.path().join("directory/new")).unwrap();
        assert!(place.shared.join("new").exists());

        // A directory of somebody else's is as good as one that all can write.
        if geteuid().is_root() {
            fs::set_permissions(&place.shared, Permissions::from_mode(0o755)).unwrap();
            std::os::unix::fs::chown(&place.shared, Some(12345), None).unwrap();
            assert_eq!(refused(&planted), Reason::Link("link".into()));
        }
        assert_eq!(
            open(&planted).unwrap_err().to_string(),
            format!(
                "cannot open {}: link is a symbolic link in a directory that others can write",
                planted.display()
            )
        );
    }

    #[test]
    fn links_in_a_circle_end() {
        let place = place();
        symlink("b", place.own.path().join("a")).unwrap();
        symlink("a", place.own.path().join("b")).unwrap();
        assert_eq!(
            refused(&place.own.path().join("a")),
            Reason::System(Errno::ELOOP)
        );
    }

    #[test]
    fn a_second_name_in_a_shared_directory_is_refused() {
        let place = place();
        let (file, planted) = (place.own.path().join("keys"), place.shared.join("log"));
        fs::write(&file, "").unwrap();
        fs::hard_link(&file, &planted).unwrap();
        assert_eq!(refused(&planted), Reason::SecondName);
        open(&file).unwrap();
    }
}

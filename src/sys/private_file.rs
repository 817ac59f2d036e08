//! Files for secrets: the log and the copies of the streams hold a session's tokens.
//!
//! Such a file is created with mode 0600 or appended to, and has to be a regular file of ours. Its
//! path is walked with care (see [`private_path`]): in `/tmp` and the like neither a link nor a
//! second name of some other file is written through.
//!
//! [`private_path`]: super::private_path

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fchmod, fstat};
use nix::unistd::geteuid;

use super::private_path::{OpenError, Reason, look, others_can_write, walk};

/// Opens `path` for appending: created with mode 0600, or ours already and narrowed to that.
///
/// # Errors
/// The path is not one that secrets may be written to, or the system refuses; see [`Reason`].
pub fn open(path: &Path) -> Result<File, OpenError> {
    open_at(path).map_err(|reason| OpenError::new(path, reason))
}

fn open_at(path: &Path) -> Result<File, Reason> {
    let place = walk(path, |_, _| Ok(()))?;
    let stat = match place.entry {
        Some((_, stat)) => stat,
        None => match create(&place.directory, &place.name) {
            // Somebody was faster. The kernel gives no such answer for a link that leads nowhere: the
            // walk saw that one.
            Err(Errno::EEXIST) => fstat(&look(&place.directory, &place.name)?)?,
            created => return Ok(created?),
        },
    };
    append(&place.directory, &place.name, &stat)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

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
        open_at(path).expect_err("refused")
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

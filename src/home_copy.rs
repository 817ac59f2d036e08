//! A copy of this program in the user's cache directory, for nodes that do not have the program
//! where the login node has it, but share the home directory.
//!
//! It is named by the hash of what is in it and checked before each use, so that sessions of any
//! version use the same directory at the same time, and one that was cut short or spoilt is none. A
//! good copy is never replaced: on a network file system that would end who runs it on another node.
//! For the same reason those of other versions are kept as long as anybody may run them
//! ([`KEPT_FOR`]), but no more than [`KEPT`].
//!
//! Home directories may be slow: the proxy has the copy made by a process of its own ([`MODE`]).

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bstr::ByteSlice;
use hmac_sha256::Hash;
use nix::fcntl::OFlag;
use rustix::process::geteuid;

use crate::sys::private_directory;

/// First and only argument of the executable in this hidden mode.
pub const MODE: &str = "--internal-home-copy";
/// How long a copy of another version stays after its last use.
pub const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// Most copies of other versions that stay, the last used ones.
pub const KEPT: usize = 8;

/// The directory in the cache directory.
const DIRECTORY: &str = env!("CARGO_PKG_NAME");
/// How the name of a copy begins that is being written.
const UNFINISHED: &str = ".new-";
/// After this time nobody writes it any more.
const ABANDONED: Duration = Duration::from_secs(3600);
/// More entries of the directory than this many are not looked at.
const ENTRIES: usize = 1000;
/// How an answer begins that holds a path, and one that holds a reason.
const MADE: &[u8] = b"made:";
const FAILED: &[u8] = b"failed:";

/// The hidden mode: makes the copy and prints where it is, or why there is none; the exit status.
pub fn run() -> u8 {
    let (word, text, status) = match make() {
        Ok(path) => (MADE, path.into_os_string().into_vec(), 0),
        Err(error) => (FAILED, error.to_string().into_bytes(), 1),
    };
    match io::stdout().write_all(&[word, &text, b"\n"].concat()) {
        Ok(()) => status,
        Err(_) => 1,
    }
}

/// The path in an answer of [`run`].
///
/// # Errors
/// Why there is no copy.
pub fn parse(answer: &[u8]) -> Result<PathBuf, String> {
    let line = answer.strip_suffix(b"\n").unwrap_or_default();
    match (line.strip_prefix(MADE), line.strip_prefix(FAILED)) {
        (Some(path), _) => Ok(path.to_os_str_lossy().into_owned().into()),
        (_, Some(reason)) => Err(reason.to_str_lossy().into_owned()),
        _ => Err("it was not said why".to_owned()),
    }
}

/// Makes the copy of the running program, or finds it; where it is.
///
/// # Errors
/// There is no place for it that is the user's alone, or the system refuses.
pub fn make() -> io::Result<PathBuf> {
    let base = cache().ok_or_else(|| {
        io::Error::other("neither XDG_CACHE_HOME nor HOME is the path of a directory")
    })?;
    let copies = Copies::open(&base)?;
    let mut program = File::open("/proc/self/exe")?;
    let name = copies.provide(&mut program).map_err(|error| {
        let path = base.join(DIRECTORY);
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    })?;
    copies.remove_old(&name, SystemTime::now());
    Ok(base.join(DIRECTORY).join(name))
}

/// `$XDG_CACHE_HOME`, or `~/.cache`. A path that is not absolute counts as none.
fn cache() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let absolute = |path: Option<PathBuf>| path.filter(|path| path.is_absolute());
    absolute(variable("XDG_CACHE_HOME"))
        .or_else(|| Some(absolute(variable("HOME"))?.join(".cache")))
}

/// The directory of the copies, which is ours alone.
struct Copies(OwnedFd);

impl Copies {
    fn open(base: &Path) -> io::Result<Self> {
        private_directory::open(base, DIRECTORY)
            .map(Self)
            .map_err(io::Error::other)
    }

    /// A name in it, by way of the descriptor: whatever becomes of its path, it is this directory's.
    fn at(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }

    /// The name of the copy of `program`.
    fn provide(&self, program: &mut File) -> io::Result<String> {
        let name = hash(program)?;
        if !self.is_good(&name) {
            self.write(program, &name)?;
            if !self.is_good(&name) {
                return Err(io::Error::other("the copy is not what was written"));
            }
        }
        // Its last use.
        File::open(self.at(&name))?.set_modified(SystemTime::now())?;
        Ok(name)
    }

    /// Whether what has this name is an executable of ours alone whose hash this is.
    fn is_good(&self, name: &str) -> bool {
        let mut options = OpenOptions::new();
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let opened = options
            .read(true)
            .custom_flags(flags.bits())
            .open(self.at(name));
        let is_ours = |metadata: &Metadata| {
            metadata.is_file()
                && metadata.uid() == geteuid().as_raw()
                && metadata.mode() & 0o7777 == 0o700
        };
        opened.is_ok_and(|mut file| {
            file.metadata().is_ok_and(|it| is_ours(&it))
                && hash(&mut file).is_ok_and(|hash| hash == name)
        })
    }

    /// Puts a copy of `program` there under `name`, in place of one that is not good.
    fn write(&self, program: &mut File, name: &str) -> io::Result<()> {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let unfinished = self.at(&format!("{UNFINISHED}{:016x}", u64::from_ne_bytes(random)));
        let written = self.fill(program, &unfinished).and_then(|()| {
            let place = self.at(name);
            match fs::hard_link(&unfinished, &place) {
                Ok(()) => Ok(()),
                // Another session was faster, and somebody may run that one.
                Err(_) if self.is_good(name) => Ok(()),
                // A spoilt one, or a file system without links.
                Err(_) => fs::rename(&unfinished, &place),
            }
        });
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => written.and(Err(error)),
            _ => written,
        }
    }

    fn fill(&self, program: &mut File, path: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut copy = options
            .write(true)
            .create_new(true)
            .mode(0o700)
            .open(path)?;
        for_each_block(program, |block| copy.write_all(block))?;
        // Some file systems have their own idea of a new file's mode.
        copy.set_permissions(fs::Permissions::from_mode(0o700))?;
        // Another node asks the file server, which has to have it by then.
        copy.sync_all()
    }

    /// Removes copies that nobody can be expected to run any more, but for `current`. What cannot be
    /// removed stays.
    fn remove_old(&self, current: &str, now: SystemTime) {
        let Ok(entries) = fs::read_dir(self.at("")) else {
            return;
        };
        let mut others: Vec<(Duration, String)> = Vec::new();
        for entry in entries.take(ENTRIES).flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let unused = entry.metadata().and_then(|metadata| metadata.modified());
            let unused = unused.map_or(Duration::ZERO, |at| {
                now.duration_since(at).unwrap_or_default()
            });
            if name.starts_with(UNFINISHED) && unused > ABANDONED {
                let _ = fs::remove_file(self.at(&name));
            } else if is_hash(&name) && name != current {
                others.push((unused, name));
            }
        }
        for other in &others {
            let used_later = others.iter().filter(|it| *it < other).count();
            if used_later >= KEPT || other.0 > KEPT_FOR {
                let _ = fs::remove_file(self.at(&other.1));
            }
        }
    }
}

fn is_hash(name: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    name.len() == 64 && name.bytes().all(is_digit)
}

/// The SHA-256 of the whole file, in hexadecimal digits.
fn hash(file: &mut File) -> io::Result<String> {
    let mut hash = Hash::new();
    for_each_block(file, |block| {
        hash.update(block);
        Ok(())
    })?;
    Ok(hash.finalize().map(|byte| format!("{byte:02x}")).concat())
}

/// Reads the file from its beginning to its end.
fn for_each_block(
    file: &mut File,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    file.rewind()?;
    let mut block = vec![0; 64 * 1024];
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(bytes) => take(&block[..bytes])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Place {
        _directory: tempfile::TempDir,
        path: PathBuf,
        copies: Copies,
        program: File,
    }

    fn place() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let copies = Copies::open(directory.path()).unwrap();
        let program = directory.path().join("program");
        fs::write(&program, "#!/bin/sh\necho runs\n").unwrap();
        Place {
            path: directory.path().join(DIRECTORY),
            copies,
            program: File::open(program).unwrap(),
            _directory: directory,
        }
    }

    impl Place {
        fn provide(&mut self) -> PathBuf {
            let name = self.copies.provide(&mut self.program).unwrap();
            self.path.join(name)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.path).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        }
    }

    fn inode(path: &Path) -> u64 {
        fs::metadata(path).unwrap().ino()
    }

    #[test]
    fn it_is_named_by_its_hash_ours_alone_and_made_once() {
        let mut place = place();
        let path = place.provide();
        // As sha256sum says.
        let hash = "20d39e906e67027cee4938e9aa7f0dfdf366ffc2dd25ddb976ad677c71d500b0";
        assert_eq!(place.names(), [hash]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        let run = std::process::Command::new(&path).output().unwrap();
        assert_eq!(run.stdout, b"runs\n");
        let first = inode(&path);
        assert_eq!(inode(&place.provide()), first, "a good one is replaced");
    }

    #[test]
    fn one_that_is_not_good_is_replaced() {
        let mut place = place();
        let path = place.provide();
        let spoilers: [fn(&Path); 5] = [
            |path| fs::write(path, "#!/bin/sh\necho spoilt\n").unwrap(),
            |path| fs::write(path, "").unwrap(),
            |path| fs::set_permissions(path, fs::Permissions::from_mode(0o770)).unwrap(),
            |path| {
                fs::rename(path, path.with_file_name("elsewhere")).unwrap();
                symlink("elsewhere", path).unwrap();
            },
            |path| fs::remove_file(path).unwrap(),
        ];
        for spoil in spoilers {
            spoil(&path);
            assert_eq!(place.provide(), path);
            assert!(fs::symlink_metadata(&path).unwrap().is_file());
            let run = std::process::Command::new(&path).output().unwrap();
            assert_eq!(run.stdout, b"runs\n");
        }
    }

    #[test]
    fn those_of_others_stay_while_they_may_be_run() {
        let mut place = place();
        let current = place.provide();
        let current = current.file_name().unwrap().to_str().unwrap();
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 3600);
        let put = |name: &str, unused: Duration| {
            let path = place.path.join(name);
            let file = File::create(&path).unwrap();
            file.set_modified(now - unused).unwrap();
        };
        let other = |number: u32| format!("{number:064x}");
        for number in 0..20 {
            put(&other(number), number * 5 * day);
        }
        put("notes", 400 * day);
        put(".new-1", day);
        put(".new-2", Duration::ZERO);
        place.copies.remove_old(current, now);
        let mut left: Vec<String> = (0..=6).map(other).collect();
        left.extend([".new-2", current, "notes"].map(str::to_owned));
        left.sort();
        assert_eq!(place.names(), left);

        for number in 0..20 {
            put(&other(number), Duration::from_secs(number.into()));
        }
        place.copies.remove_old(current, now);
        let others = place.names().into_iter().filter(|name| is_hash(name));
        assert_eq!(others.filter(|name| name != current).count(), KEPT);
        assert!(place.names().contains(&other(0)));
    }

    #[test]
    fn an_answer_is_a_path_or_a_reason() {
        assert_eq!(parse(b"made:/a/b\n"), Ok("/a/b".into()));
        assert_eq!(parse(b"failed:no room\n"), Err("no room".to_owned()));
        for cut in [&b"made:/a/"[..], b"", b"\n", b"/a/b\n"] {
            assert_eq!(parse(cut), Err("it was not said why".to_owned()));
        }
    }
}

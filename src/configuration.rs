//! Which configuration files there are, and what is in them.
//!
//! The site's file is the first of `/etc/vscode-shell-proxy.conf` and `../etc/vscode-shell-proxy.conf`
//! beside the command as it was called, then beside the executable itself; the user's is
//! `vscode-shell-proxy/config` in `$XDG_CONFIG_HOME` or `~/.config`. `--config` names further ones.
//!
//! A file is read before anything else happens, so nothing may wait there: it has to be a regular
//! file of bounded size. One that everybody can write is nobody's word.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

use crate::options::{CommandLine, ConfigFile, UsageError, Whose};

/// The site's file, by its name in `/etc` and elsewhere.
const SITE: &str = "vscode-shell-proxy.conf";
/// The user's file in `~/.config`.
const USER: &str = "vscode-shell-proxy/config";
/// The largest file that is read; the longest that makes sense is a hundredth of it.
const MOST_BYTES: u64 = 256 * 1024;

/// The files that count for this command line, those that count more behind those that count less.
/// `called` is the program's name as it was started.
///
/// # Errors
/// A file that cannot be read or is not understood, or that `--config` names and is not there.
pub fn files(line: &CommandLine, called: Option<&OsStr>) -> Result<Vec<ConfigFile>, UsageError> {
    let mut files = Vec::new();
    for path in site_paths(called) {
        if let Some(file) = read_if_there(&path, Whose::Site)? {
            files.push(file);
            break;
        }
    }
    if let Some(path) = user_path() {
        files.extend(read_if_there(&path, Whose::User)?);
    }
    for path in line.settings.all::<PathBuf>("config")? {
        if path == Path::new("none") {
            files.retain(|file| file.whose == Whose::Site);
            files = files
                .into_iter()
                .map(ConfigFile::without_what_is_free)
                .collect();
        } else {
            let file = read_if_there(&path, Whose::User)?;
            files.push(file.ok_or_else(|| cannot(&path, "there is no such file"))?);
        }
    }
    Ok(files)
}

/// Where the site's file may be, the first choice first.
fn site_paths(called: Option<&OsStr>) -> Vec<PathBuf> {
    let mut paths = vec![Path::new("/etc").join(SITE)];
    let called = called.and_then(command_path);
    let executables = called.into_iter().chain(env::current_exe());
    paths.extend(executables.filter_map(|path| Some(etc_beside(path.parent()?))));
    paths
}

/// The command as it was called: as a path, or found on `PATH` by its name.
fn command_path(called: &OsStr) -> Option<PathBuf> {
    let called = Path::new(called);
    if called.components().count() > 1 {
        return Some(called.to_owned());
    }
    let path = env::var_os("PATH")?;
    let mut candidates = env::split_paths(&path).map(|directory| directory.join(called));
    candidates.find(|path| {
        let metadata = path.metadata();
        metadata.is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    })
}

/// How a `RemoteCommand` calls the program that was called like this: by its name where that is found
/// on the `PATH` that sshd gives, else by its path.
pub fn remote_command(called: Option<&OsStr>) -> OsString {
    let path = called.and_then(command_path);
    let path = path.or_else(|| env::current_exe().ok());
    let path = path.and_then(|path| std::path::absolute(path).ok());
    let path = path.unwrap_or_else(|| env!("CARGO_PKG_NAME").into());
    let directory = path.parent().and_then(Path::to_str);
    match (directory, path.file_name()) {
        (Some("/usr/local/bin" | "/usr/bin" | "/bin"), Some(name)) => name.to_owned(),
        _ => path.into_os_string(),
    }
}

/// The site's file beside a directory of programs. A link that leads to this directory is not
/// followed: `/usr/local/bin` goes with `/usr/local/etc`, wherever it lies.
fn etc_beside(directory: &Path) -> PathBuf {
    let above = match (directory.file_name(), directory.parent()) {
        (Some(_), Some(parent)) => parent.to_owned(),
        _ => directory.join(".."),
    };
    above.join("etc").join(SITE)
}

fn user_path() -> Option<PathBuf> {
    let absolute = |name| {
        let path = env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let directory = absolute("XDG_CONFIG_HOME");
    let directory = directory.or_else(|| Some(absolute("HOME")?.join(".config")));
    Some(directory?.join(USER))
}

fn read_if_there(path: &Path, whose: Whose) -> Result<Option<ConfigFile>, UsageError> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    let file = match opened {
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
            return Ok(None);
        }
        opened => opened.map_err(|error| cannot(path, error))?,
    };
    let metadata = file.metadata().map_err(|error| cannot(path, error))?;
    if !metadata.is_file() {
        return Err(cannot(path, "it is not a regular file"));
    }
    if metadata.mode() & 0o002 != 0 {
        return Err(cannot(
            path,
            "everybody can write it, so it is nobody's word; chmod o-w it",
        ));
    }
    let mut text = Vec::new();
    file.take(MOST_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|error| cannot(path, error))?;
    if text.len() as u64 > MOST_BYTES {
        return Err(cannot(
            path,
            format_args!("it is longer than {MOST_BYTES} bytes"),
        ));
    }
    ConfigFile::read(path, whose, &text).map(Some)
}

fn cannot(path: &Path, why: impl Display) -> UsageError {
    UsageError::new(format!(
        "cannot read the configuration file {}: {why}",
        path.display()
    ))
}

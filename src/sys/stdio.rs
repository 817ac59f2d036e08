//! Byte streams that never block the loop and never disturb who shares them.
//!
//! `O_NONBLOCK` sits on the open file description, which a parent shell or the user's terminal may
//! share. So a pipe or a terminal is opened anew through `/proc/self/fd`, for a description of our
//! own; a socket is asked call by call; a regular file never blocks for long. Only where a pipe
//! cannot be opened anew (it belongs to another user) is the flag set, and put back on drop.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{RecvFlags, SendFlags};

/// Which way bytes go through a [`Stream`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// We read from it.
    Read,
    /// We write to it.
    Write,
}

#[derive(Debug)]
enum Kind {
    /// The description is non-blocking.
    NonBlocking,
    /// A socket: each call says that it must not block.
    Socket,
    /// A regular file or a device without readiness: calls do not wait for anybody.
    Plain,
}

/// One end of a byte stream.
#[derive(Debug)]
pub struct Stream {
    fd: OwnedFd,
    kind: Kind,
    is_pipe: bool,
    /// The flags to put back on a description that others share.
    restore: Option<OFlags>,
}

impl Stream {
    /// Takes over `fd`, a standard stream that others may share.
    ///
    /// # Errors
    /// Of the duplication or of the look-up of what `fd` is.
    pub fn share(fd: BorrowedFd<'_>, direction: Direction) -> io::Result<Self> {
        let file = std::fs::File::from(fd.try_clone_to_owned()?);
        let kind = file.metadata()?.file_type();
        let is_pipe = kind.is_fifo();
        let terminal = kind.is_char_device() && rustix::termios::isatty(&file);
        if kind.is_socket() {
            return Ok(Self {
                fd: file.into(),
                kind: Kind::Socket,
                is_pipe,
                restore: None,
            });
        }
        if !(is_pipe || terminal) {
            return Ok(Self {
                fd: file.into(),
                kind: Kind::Plain,
                is_pipe,
                restore: None,
            });
        }
        let own = OpenOptions::new()
            .read(direction == Direction::Read)
            .write(direction == Direction::Write)
            .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32)
            .open(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        if let Ok(own) = own {
            return Ok(Self {
                fd: own.into(),
                kind: Kind::NonBlocking,
                is_pipe,
                restore: None,
            });
        }
        let flags = fcntl_getfl(&file)?;
        fcntl_setfl(&file, flags | OFlags::NONBLOCK)?;
        Ok(Self {
            fd: file.into(),
            kind: Kind::NonBlocking,
            is_pipe,
            restore: Some(flags),
        })
    }

    /// Takes over a pipe's end that nobody else holds.
    ///
    /// # Errors
    /// Of fcntl(2).
    pub fn own(fd: OwnedFd) -> io::Result<Self> {
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        Ok(Self {
            fd,
            kind: Kind::NonBlocking,
            is_pipe: true,
            restore: None,
        })
    }

    /// Reads once, without waiting; 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there now, or what read(2) or recv(2) says.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| match self.kind {
            Kind::Socket => {
                rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::DONTWAIT).map(|(n, _)| n)
            }
            Kind::NonBlocking | Kind::Plain => rustix::io::read(&self.fd, &mut *buffer),
        })
    }

    /// Writes once, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` where nothing fits now, or what write(2) or send(2) says.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        retry(|| match self.kind {
            Kind::Socket => {
                rustix::net::send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            }
            Kind::NonBlocking | Kind::Plain => rustix::io::write(&self.fd, bytes),
        })
    }

    /// Whether a read that gave less than was asked for says that the rest would block. A terminal
    /// gives a line at a time, so there it does not.
    pub fn short_read_is_last(&self) -> bool {
        matches!(self.kind, Kind::Socket) || self.is_pipe
    }

    /// How many bytes can be read at this moment (0 where the kernel does not say).
    pub fn available(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.fd).unwrap_or(0)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(flags) = self.restore {
            // The description may be gone by now; then nobody misses its flags.
            let _ = fcntl_setfl(&self.fd, flags);
        }
    }
}

fn retry(mut call: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_shared_pipe_stays_blocking_for_its_other_holders() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let stream = Stream::share(reader.as_fd(), Direction::Read).unwrap();
        assert!(!fcntl_getfl(&reader).unwrap().contains(OFlags::NONBLOCK));
        let mut buffer = [0; 8];
        assert_eq!(
            stream.read(&mut buffer).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        writer.write_all(b"abc").unwrap();
        assert_eq!(
            (stream.available(), stream.read(&mut buffer).unwrap()),
            (3, 3)
        );
    }

    #[test]
    fn a_shared_socket_is_never_made_non_blocking() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let stream = Stream::share(ours.as_fd(), Direction::Read).unwrap();
        assert_eq!(
            stream.read(&mut [0; 8]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        assert!(!fcntl_getfl(&ours).unwrap().contains(OFlags::NONBLOCK));
        assert_eq!(stream.write(b"abc").unwrap(), 3);
        drop(theirs);
    }

    #[test]
    fn regular_files_and_dev_null_work() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let null = Stream::share(null.as_fd(), Direction::Read).unwrap();
        assert_eq!(null.read(&mut [0; 8]).unwrap(), 0);
        let stream = Stream::share(file.as_fd(), Direction::Write).unwrap();
        assert_eq!(stream.write(b"def").unwrap(), 3);
    }
}

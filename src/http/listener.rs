//! Where HTTP listens: a TCP port, or a socket in the file system.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// A bound socket.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The name of a socket. It goes when this value does.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    pub(crate) fn tcp(addr: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(addr).with_context(|| {
            format!("HTTP cannot listen on {addr}; give another address with --addr HOST:PORT")
        })?;
        listener.set_nonblocking(true)?;
        Ok(Self::Tcp(listener))
    }

    /// Who may connect is up to the directory and the umask of the process.
    pub(crate) fn unix(path: &str) -> anyhow::Result<Self> {
        if !path.starts_with('/') {
            bail!("http.net is unix, so http.addr must be the whole path of a socket, not {path}");
        }
        let path = Path::new(path);
        remove_stale(path)?;
        let cannot = || format!("HTTP cannot listen on {}; give another path in http.addr", path.display());
        let listener = UnixListener::bind(path).with_context(cannot)?;
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(listener, SocketFile(path.to_owned())))
    }

    /// Whether only this machine can reach it.
    pub(crate) fn is_local(&self) -> bool {
        self.address().is_none_or(|address| address.ip().is_loopback())
    }

    /// The address and port, or the path.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Tcp(_) => self.address().map(|address| address.to_string()).unwrap_or_default(),
            Self::Unix(_, SocketFile(path)) => path.display().to_string(),
        }
    }

    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }
}

/// Removes a socket that nobody answers at; a process that was killed leaves one.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if UnixStream::connect(path).is_ok() {
                bail!("another process listens on {}", path.display());
            }
            Ok(std::fs::remove_file(path)?)
        }
        Ok(_) => bail!("{} is there and is no socket", path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("{}", path.display())),
    }
}

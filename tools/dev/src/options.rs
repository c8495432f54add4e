//! What can be asked of `sluice dev`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of the data, the token secret and the addresses; made when missing.
    pub dir: PathBuf,
    /// Messages in memory: gone with the process.
    pub memory: bool,
    /// How many gateways.
    pub gateways: usize,
    /// Where to listen; loopback only.
    pub host: IpAddr,
    /// Client port of the first gateway. Without it the one it had before, else 8080, else a free one.
    pub port: Option<u16>,
    /// Pages of these origins may connect, besides its own; as browsers send them, `http://localhost:5173`.
    pub origins: Vec<String>,
}

impl Options {
    /// Two gateways and a file in `dir`.
    #[must_use]
    pub fn in_folder(dir: impl Into<PathBuf>) -> Self {
        let host = Ipv4Addr::LOCALHOST.into();
        Self { dir: dir.into(), memory: false, gateways: 2, host, port: None, origins: Vec::new() }
    }

    /// The same with its messages in memory.
    #[must_use]
    pub fn in_memory(dir: impl Into<PathBuf>) -> Self {
        Self { memory: true, ..Self::in_folder(dir) }
    }
}

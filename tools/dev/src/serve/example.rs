//! The first file of `sluice serve`: a fresh secret, a key of the API, and what an operator decides. Overwrites nothing.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sluice_access::{ApiKeyEntry, new_api_key};

use crate::error::Error;
use crate::secret;

/// What was written.
#[derive(Debug)]
pub struct Example {
    /// The configuration.
    pub config: PathBuf,
    /// The hashes of the keys of the API.
    pub keys: PathBuf,
    /// The key that was made; it is nowhere else.
    pub api_key: String,
}

/// Writes a configuration to `config`, and the file of keys beside it; `dir` is the folder of the messages, by default
/// one beside them.
///
/// # Errors
/// One of the two is there already, or cannot be written.
pub fn write_example(config: &Path, dir: Option<&str>) -> Result<Example, Error> {
    let folder = config.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::file("cannot create", folder))?;
    // Whole paths: a service manager starts it somewhere else.
    let folder = folder.canonicalize().map_err(Error::file("cannot find", folder))?;
    let name = config.file_name().map_or_else(|| "sluice.toml".into(), std::ffi::OsStr::to_owned);
    let (config, keys) = (folder.join(name), folder.join("keys.toml"));
    let data = dir.map_or_else(|| folder.join("data"), PathBuf::from);
    let api_key = new_api_key();
    let all = || vec!["*".to_owned(), "@*".to_owned()];
    let entry =
        ApiKeyEntry { sub: all(), publish: all(), disconnect: all(), ..ApiKeyEntry::of("backend", &api_key) };
    let entry = entry.to_toml().map_err(|reason| Error::State { path: keys.clone(), reason })?;
    // The one that holds a secret first: without it the other is of no use, and its key is nobody's.
    create(&config, &text(&secret::random(), &data, &keys))?;
    if let Err(error) = create(&keys, &entry) {
        std::fs::remove_file(&config).ok(); // or the next try would find half of it
        return Err(error);
    }
    Ok(Example { config, keys, api_key })
}

/// A new file that only its owner reads.
fn create(path: &Path, text: &str) -> Result<(), Error> {
    let mut options = OpenOptions::new();
    options.create_new(true).write(true).mode(0o600);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(Error::file("cannot create", path))
}

fn text(secret: &str, data: &Path, keys: &Path) -> String {
    // As TOML writes a text: a path may have quotes in it.
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    format!(
        r#"# `sluice serve`: gateways, logic and task in one process on one file. Every key is explained in deploy/config.md,
# and what is not here has its default. `sluice serve --config THIS --check` reads it and starts nothing.

# The messages. One process at a time; back it up with `sluice store backup FILE --dir DIR`.
dir = {dir}

# Where clients connect, a gateway for each address: with two, one is rolled while the other serves. On another machine's
# way there must be a proxy with TLS: name it in trusted_proxies, and the URL that clients use in advertise.
listen = ["127.0.0.1:8080", "127.0.0.1:8090"]
# advertise = "wss://chat.example.org/ws"
# trusted_proxies = ["127.0.0.1"]
# Pages of these origins may connect, besides those of the host that the browser asked for.
# origins = ["https://www.example.org"]

# Signs the tokens of users, HS256: your backend has the same. Keep it from everybody else.
token_secret = "{secret}"

# The HTTP API for backends. `sluice api-key new NAME --file KEYS` adds a key.
[api]
listen = "127.0.0.1:7073"
keys_file = {keys}

# Health, metrics, the restart of a gateway. Anywhere but on loopback it needs a token_file.
[admin]
listen = "127.0.0.1:8081"

[retention]
# Thirty days; 0 keeps everything.
age_s = 2_592_000
"#,
        dir = quoted(data),
        keys = quoted(keys),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use sluice_service::config::load_with_warnings;
    use sluice_service::process::Settings as _;

    use super::*;
    use crate::serve::ServeConfig;

    #[test]
    fn what_is_written_can_be_started_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/\"sluice\".toml");
        let example = write_example(&path, None).unwrap();
        let loaded = load_with_warnings::<ServeConfig>(Some(&path), std::iter::empty(), &[]).unwrap();
        assert_eq!(loaded.config.check(), Ok(()));
        assert_eq!((loaded.config.warnings(), loaded.warnings), (Vec::new(), Vec::new()));
        assert_eq!(loaded.config.token_secret.reveal().len(), 64);
        assert!(Path::new(&loaded.config.dir).is_absolute());
        for file in [&example.config, &example.keys] {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", file.display());
            assert!(!std::fs::read_to_string(file).unwrap().contains(&example.api_key));
        }
        let before = std::fs::read_to_string(&path).unwrap();
        assert!(write_example(&path, None).unwrap_err().to_string().contains("exists"));
        // A file of keys that is there is somebody's: nothing is left of the try.
        let other = path.with_file_name("other.toml");
        assert!(write_example(&other, None).is_err() && !other.exists());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
    }
}

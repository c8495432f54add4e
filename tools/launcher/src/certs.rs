//! An authority and a certificate for each service, for those who have none: files that `[tls]` names. The authority
//! is kept when certificates are renewed, so that services need no restart and know each other throughout.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use crate::error::Error;
use crate::service::Service;

/// The name in the authority's certificate, the same in all: a renewal knows it without reading the certificate.
const AUTHORITY: &str = "Sluice services";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// A clock that is a little behind must not take a new certificate for one of the future.
const BEFORE: Duration = DAY;
/// How long the authority is good for.
pub const AUTHORITY_DAYS: u32 = 3_650;
/// How long a certificate is good for: renewing costs no restart.
pub const CERTIFICATE_DAYS: u32 = 365;

/// How the DNS names of services end; a certificate for anything else must not be taken for one of theirs.
const SERVICE_NAMES: &str = ".sluice";
/// The DNS name of who asks servers: no service takes it for one of its own.
const OPERATOR: &str = "operator.sluice";
/// What servers of a private cluster are called by.
const LOOPBACK: [&str; 2] = ["127.0.0.1", "localhost"];

/// Files of the authority in its folder: only the first goes to the services.
const CA: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
/// There while files are made for the first time: whoever finds it begins anew.
const UNFINISHED: &str = "unfinished";

/// Where the files of a service are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// For `tls.ca`.
    pub ca: PathBuf,
    /// For `tls.cert`.
    pub cert: PathBuf,
    /// For `tls.key`.
    pub key: PathBuf,
}

/// The files of a service in a folder that [`make`] has filled.
#[must_use]
pub fn files(dir: &Path, service: Service) -> Files {
    let file = |end: &str| dir.join(format!("{service}.{end}"));
    Files { ca: dir.join(CA), cert: file("pem"), key: file("key") }
}

/// Makes an authority and the certificates of all services. Overwrites nothing but what an interrupted call has left.
///
/// # Errors
/// A file is there already, or cannot be written.
pub fn make(dir: &Path) -> Result<(), Error> {
    let unfinished = dir.join(UNFINISHED);
    // The authority's certificate is written last: with it all is there, and nobody can have used what lacks it.
    let half = unfinished.exists() && !dir.join(CA).exists();
    if !half {
        refuse_to_overwrite(dir)?;
    }
    // Of the owner alone, also if keys once come in with another mode.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(Error::file("cannot create", dir))?;
    let again =
        format!("`sluice certs --dir {}` makes these files, or was killed; call it again.\n", dir.display());
    write(&unfinished, &again, 0o644)?;
    sync(dir)?;
    let key = new_key()?;
    let authority = CertifiedIssuer::self_signed(authority(), key).map_err(failed)?;
    write(&dir.join(CA_KEY), &authority.key().serialize_pem(), 0o600)?;
    certify_all(dir, &authority)?;
    sync(dir)?;
    write(&dir.join(CA), &authority.pem(), 0o644)?;
    finish(dir)
}

/// With the authority's certificate in its place nothing is unfinished any more.
fn finish(dir: &Path) -> Result<(), Error> {
    sync(dir)?;
    let unfinished = dir.join(UNFINISHED);
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::file("cannot remove", &unfinished)),
    }
}

fn refuse_to_overwrite(dir: &Path) -> Result<(), Error> {
    let (ca, key) = (dir.join(CA), dir.join(CA_KEY));
    if ca.exists() {
        // Killed after its last file: all that was missing is this.
        finish(dir)?;
    }
    let there: Vec<PathBuf> = all_files(dir).into_iter().filter(|file| file.exists()).collect();
    let Some(first) = there.first() else { return Ok(()) };
    let fix = match (ca.exists(), key.exists()) {
        (true, true) => {
            format!(
                "`sluice certs --dir {} --renew` makes new certificates of the same authority",
                dir.display()
            )
        }
        // Not the leavings of a call: somebody took the other one away.
        (true, false) => format!("bring {} back and renew them, or take another folder", key.display()),
        (false, _) => format!("bring {} back, or take another folder", ca.display()),
    };
    Err(Error::System(format!("{} is there already and is not overwritten: {fix}", first.display())))
}

/// PEM texts of a service, for what `tls.ca`, `tls.cert` and `tls.key` name.
pub struct Pem {
    /// The authority.
    pub ca: String,
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

/// The authority of the services in one process, which signs for these alone. Nothing is written, so nobody else has a key
/// of it, and nothing has to end: a clock that is set while the process lives must not part its services.
pub struct ProcessAuthority(CertifiedIssuer<'static, KeyPair>);

impl ProcessAuthority {
    /// # Errors
    /// The system has no random numbers.
    pub fn new() -> Result<Self, Error> {
        CertifiedIssuer::self_signed(always(authority()), new_key()?).map_err(failed).map(Self)
    }

    /// A certificate of one service, good for as long as the authority: nobody renews it.
    ///
    /// # Errors
    /// As of [`ProcessAuthority::new`].
    pub fn certify(&self, service: Service) -> Result<Pem, Error> {
        let params = for_hosts(service.as_str(), &[&format!("{service}{SERVICE_NAMES}")])?;
        let own = new_key()?;
        let signed = always(params).signed_by(&own, &self.0).map_err(failed)?;
        Ok(Pem { ca: self.0.pem(), cert: signed.pem(), key: own.serialize_pem() })
    }
}

/// As [`make`], where there is no authority yet.
///
/// # Errors
/// As [`make`].
pub fn make_missing(dir: &Path) -> Result<(), Error> {
    if dir.join(CA).exists() { finish(dir) } else { make(dir) }
}

/// Makes the certificates and keys of all services anew, of the authority that is in the folder.
///
/// # Errors
/// There is no authority, or files cannot be written.
pub fn renew(dir: &Path) -> Result<(), Error> {
    certify_all(dir, &issuer(dir)?)
}

/// A certificate of the authority in a folder, for a server that is called by this DNS name or address and shows itself
/// to its peers by the same: `HOST.pem` and `HOST.key`, made anew.
///
/// # Errors
/// It is no name of a server, there is no authority, or files cannot be written.
pub fn make_for_server(dir: &Path, host: &str) -> Result<Files, Error> {
    let is_service = host.ends_with(SERVICE_NAMES) || Service::SERVICES.iter().any(|it| it.as_str() == host);
    let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:_".contains(&byte));
    if host.is_empty() || host == "ca" || is_service || !is_name || host.starts_with('.') {
        return Err(Error::System(format!(
            "{host:?} is no name of a server: give a host name or an address by which it is called, and none of a \
             service"
        )));
    }
    let file = |end: &str| dir.join(format!("{host}.{end}"));
    let files = Files { ca: dir.join(CA), cert: file("pem"), key: file("key") };
    write_certificate(for_hosts(host, &[host])?, &issuer(dir)?, &files)?;
    sync(dir)?;
    Ok(files)
}

/// The authority of a folder that [`make`] has filled, for the launcher's own servers.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn of(dir: &Path) -> Result<Self, Error> {
        let ca = dir.join(CA);
        let pem = std::fs::read_to_string(&ca).map_err(Error::file("cannot read the authority,", &ca))?;
        Ok(Self { pem, issuer: issuer(dir)? })
    }

    /// A certificate for a server on loopback, in a folder that is there.
    pub(crate) fn certify_server(&self, name: &str, into: &Path) -> Result<Files, Error> {
        self.certify(for_hosts(name, &LOOPBACK)?, into)
    }

    /// A certificate for who asks servers and is none. It has no common name: etcd would take that for a user's, and
    /// refuses it over HTTP.
    pub(crate) fn certify_operator(&self, into: &Path) -> Result<Files, Error> {
        let mut params = for_hosts("", &[OPERATOR])?;
        params.distinguished_name = DistinguishedName::new();
        self.certify(params, into)
    }

    fn certify(&self, params: CertificateParams, into: &Path) -> Result<Files, Error> {
        let files = Files { ca: into.join(CA), cert: into.join("own.pem"), key: into.join("own.key") };
        write(&files.ca, &self.pem, 0o644)?;
        write_certificate(params, &self.issuer, &files)?;
        Ok(files)
    }
}

/// Signs with the key of the authority that is in a folder.
fn issuer(dir: &Path) -> Result<Issuer<'static, KeyPair>, Error> {
    let path = dir.join(CA_KEY);
    let key = std::fs::read_to_string(&path)
        .map_err(Error::file("cannot read the key of the authority,", &path))?;
    let key = KeyPair::from_pem(&key)
        .map_err(|error| Error::System(format!("{} is no private key: {error}", path.display())))?;
    let ca = dir.join(CA);
    File::open(&ca).map_err(Error::file("cannot read the authority,", &ca))?;
    Ok(Issuer::new(authority(), key))
}

fn certify_all(dir: &Path, authority: &Issuer<'_, KeyPair>) -> Result<(), Error> {
    for service in Service::SERVICES {
        let params = for_hosts(service.as_str(), &[&format!("{service}{SERVICE_NAMES}")])?;
        write_certificate(params, authority, &files(dir, service))?;
    }
    sync(dir)
}

fn write_certificate(
    params: CertificateParams,
    authority: &Issuer<'_, KeyPair>,
    files: &Files,
) -> Result<(), Error> {
    let own = new_key()?;
    let signed = params.signed_by(&own, authority).map_err(failed)?;
    // Both are whole before either takes its place. Killed between the two, the next call makes both anew; a running
    // service keeps what it has until they belong together.
    let (key, cert) =
        (written(&files.key, &own.serialize_pem(), 0o600)?, written(&files.cert, &signed.pem(), 0o644)?);
    key.place()?;
    cert.place()
}

fn authority() -> CertificateParams {
    let mut params = named(AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(params, AUTHORITY_DAYS)
}

/// Services are servers and clients of each other, and so are members of a group. What a service is is its DNS name,
/// wherever it runs.
fn for_hosts(name: &str, hosts: &[&str]) -> Result<CertificateParams, Error> {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).map_err(failed)?;
    params.distinguished_name = named(name).distinguished_name;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(valid_for(params, CERTIFICATE_DAYS))
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn valid_for(mut params: CertificateParams, days: u32) -> CertificateParams {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let at = |since_1970: Duration| date_time_ymd(1970, 1, 1) + since_1970;
    params.not_before = at(now.saturating_sub(BEFORE));
    params.not_after = at(now + DAY * days);
    params
}

/// Whatever the clock says.
fn always(mut params: CertificateParams) -> CertificateParams {
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    params
}

fn new_key() -> Result<KeyPair, Error> {
    KeyPair::generate().map_err(failed)
}

fn failed(error: rcgen::Error) -> Error {
    Error::System(format!("a certificate could not be made: {error}"))
}

fn all_files(dir: &Path) -> Vec<PathBuf> {
    let of_services = Service::SERVICES.map(|service| files(dir, service));
    let of_services = of_services.into_iter().flat_map(|files| [files.cert, files.key]);
    [dir.join(CA), dir.join(CA_KEY)].into_iter().chain(of_services).collect()
}

/// A file that is whole, beside the place where it belongs.
struct Written<'a> {
    beside: PathBuf,
    path: &'a Path,
}

impl Written<'_> {
    fn place(self) -> Result<(), Error> {
        std::fs::rename(&self.beside, self.path).map_err(Error::file("cannot write", self.path))
    }
}

/// At once or not at all.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    written(path, text, mode)?.place()
}

/// What the folder says of its files is on the disk: after a power cut too, they came in their order.
fn sync(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::file("cannot write", dir))
}

/// Beside it first: nobody reads half a file, and a key is never open to others, not even for a moment.
fn written<'a>(path: &'a Path, text: &str, mode: u32) -> Result<Written<'a>, Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        removed => removed.map_err(Error::file("cannot remove", &beside))?,
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(Error::file("cannot write", &beside))?;
    Ok(Written { beside, path })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn keys_are_for_their_owner_alone_and_nothing_is_overwritten() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("certs");
        make(&dir).unwrap();
        assert_eq!((mode(&dir), mode(&dir.join(CA_KEY))), (0o700, 0o600));
        for service in Service::SERVICES {
            assert_eq!(mode(&files(&dir, service).key), 0o600);
        }
        let before = std::fs::read(dir.join(CA)).unwrap();
        let error = make(&dir).unwrap_err().to_string();
        assert!(error.contains("not overwritten") && error.contains("--renew"), "{error}");
        assert_eq!(std::fs::read(dir.join(CA)).unwrap(), before);
    }

    /// Every state that a crash can leave: the files in the order in which they are made, cut off after each.
    #[test]
    fn a_call_that_was_killed_is_made_good_by_the_next() {
        let whole = tempfile::tempdir().unwrap();
        make(whole.path()).unwrap();
        assert!(!whole.path().join(UNFINISHED).exists());
        let mut made = vec![CA_KEY.to_owned()];
        for service in Service::SERVICES {
            made.extend([format!("{service}.key"), format!("{service}.pem")]);
        }
        for cut in 0..=made.len() {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(UNFINISHED), "").unwrap();
            std::fs::write(dir.path().join("logic.key.new"), "half a k").unwrap();
            for file in &made[..cut] {
                std::fs::copy(whole.path().join(file), dir.path().join(file)).unwrap();
            }
            make_missing(dir.path()).unwrap();
            assert!(
                !dir.path().join(UNFINISHED).exists()
                    && all_files(dir.path()).iter().all(|file| file.exists())
            );
            let renewed = renew(dir.path());
            assert!(renewed.is_ok(), "cut after {cut}: {renewed:?}");
        }
        // Killed after the last one: nothing is made anew.
        std::fs::write(whole.path().join(UNFINISHED), "").unwrap();
        let before = std::fs::read(whole.path().join(CA_KEY)).unwrap();
        let error = make(whole.path()).unwrap_err().to_string();
        assert!(error.contains("--renew") && !whole.path().join(UNFINISHED).exists(), "{error}");
        assert_eq!(std::fs::read(whole.path().join(CA_KEY)).unwrap(), before);
    }

    #[test]
    fn a_file_that_somebody_took_away_is_named() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path()).unwrap();
        let ca = std::fs::read(dir.path().join(CA)).unwrap();
        std::fs::remove_file(dir.path().join(CA)).unwrap();
        let error = make_missing(dir.path()).unwrap_err().to_string();
        assert!(error.contains("bring") && error.contains("ca.pem back"), "{error}");
        std::fs::write(dir.path().join(CA), ca).unwrap();
        std::fs::remove_file(dir.path().join(CA_KEY)).unwrap();
        assert!(make(dir.path()).unwrap_err().to_string().contains("ca.key back"));
    }

    #[test]
    fn a_server_has_a_certificate_of_the_same_authority_and_the_name_of_no_service() {
        let dir = tempfile::tempdir().unwrap();
        assert!(make_for_server(dir.path(), "nats").unwrap_err().to_string().contains("ca.key"));
        make(dir.path()).unwrap();
        for host in ["nats", "db.example", "10.0.0.1", "::1"] {
            let files = make_for_server(dir.path(), host).unwrap();
            assert!(files.ca.exists() && files.cert.exists());
            assert_eq!(mode(&files.key), 0o600);
        }
        for host in ["", "ca", "logic", "logic.sluice", "x.sluice", "../x", ".x", "a b"] {
            let error = make_for_server(dir.path(), host).unwrap_err().to_string();
            assert!(error.contains("no name of a server"), "{host:?}: {error}");
        }
    }

    #[test]
    fn a_renewal_keeps_the_authority_and_needs_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let error = renew(dir.path()).unwrap_err().to_string();
        assert!(error.contains("ca.key"), "{error}");
        make(dir.path()).unwrap();
        let read = |file: &Path| std::fs::read(file).unwrap();
        let logic = files(dir.path(), Service::Logic);
        let before = (read(&logic.ca), read(&logic.cert), read(&logic.key));
        renew(dir.path()).unwrap();
        assert_eq!(read(&logic.ca), before.0);
        assert!(read(&logic.cert) != before.1 && read(&logic.key) != before.2);
        assert_eq!(mode(&logic.key), 0o600);
    }
}

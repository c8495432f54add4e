//! Why a link between two services does not come about, in words that name the fix. Pure.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// One reason; the same words for the same fault, so that it is said once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// The other end does not speak TLS, and we do.
    NoTls,
    /// It speaks TLS, and we do not.
    OnlyTls,
    /// It ended the connection before it said anything.
    Closed,
    /// It has opened many connections and finishes none.
    TooMany,
    /// It shows no certificate.
    NoCertificate,
    /// Its certificate is not of our authorities.
    OtherAuthority,
    /// Its certificate has expired, or a clock is wrong.
    Expired,
    /// Its certificate names another service, or none.
    OtherRole,
    /// Our certificate is not of its authorities.
    OurAuthority,
    /// Ours has expired in its eyes.
    OurExpired,
    /// It does not want ours for another reason.
    OurRefused,
    /// None of these.
    Other,
}

impl Reason {
    /// For people.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::NoTls => "it does not speak TLS: set tls.ca, tls.cert and tls.key there too",
            Self::OnlyTls => "it speaks TLS and we do not: set tls.ca, tls.cert and tls.key here too",
            Self::Closed => {
                "it closed the connection during the TLS handshake: is it a service, with tls.ca, tls.cert and tls.key set?"
            }
            Self::TooMany => {
                "it has opened too many connections and finishes no handshake: only services belong into this network"
            }
            Self::NoCertificate => "it shows no certificate: only services of this deployment are let in",
            Self::OtherAuthority => {
                "its certificate is not of our authority: certificates of all services need one tls.ca"
            }
            Self::Expired => {
                "its certificate has expired, or is not valid yet: renew it there (`sluice certs --dir certs --renew`), or set the clock"
            }
            Self::OtherRole => {
                "its certificate is not for this: the service must be among its DNS names (gateway.sluice, \
                 logic.sluice, task.sluice)"
            }
            Self::OurAuthority => {
                "it does not know the authority of our certificate: certificates of all services need one tls.ca"
            }
            Self::OurExpired => {
                "our certificate has expired, or is not valid yet: renew tls.cert here (`sluice certs --dir certs --renew`), or set the clock"
            }
            Self::OurRefused => "it refuses our certificate: is tls.cert here that of this service?",
            Self::Other => "the TLS handshake failed",
        }
    }
}

/// The rustls error in an I/O error.
fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Why the server at the other end is not to be used; `None`: not for a reason of TLS.
pub(crate) fn of_server(error: &io::Error) -> Option<Reason> {
    match tls_error(error) {
        Some(error) => Some(reason(error)),
        None => matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        )
        .then_some(Reason::Closed),
    }
}

/// Why the client at the other end is refused; `None`: it just went away.
pub(crate) fn of_client(error: &io::Error) -> Option<Reason> {
    tls_error(error).map(reason)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "rustls has many more, and adds to them")]
fn reason(error: &Error) -> Reason {
    match error {
        Error::InvalidMessage(_) => Reason::NoTls,
        Error::NoCertificatesPresented => Reason::NoCertificate,
        Error::InvalidCertificate(error) => certificate(error),
        Error::AlertReceived(alert) => match alert {
            AlertDescription::UnknownCA | AlertDescription::DecryptError => Reason::OurAuthority,
            AlertDescription::CertificateExpired => Reason::OurExpired,
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::AccessDenied => Reason::OurRefused,
            _ => Reason::Other,
        },
        _ => Reason::Other,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the same")]
fn certificate(error: &CertificateError) -> Reason {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Reason::OtherAuthority,
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => Reason::Expired,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Reason::OtherRole
        }
        _ => Reason::Other,
    }
}

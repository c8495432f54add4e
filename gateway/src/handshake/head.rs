//! The head of an HTTP request: complete or not, and read strictly. Two servers in a row that read one request
//! differently let a stranger smuggle a second one past the first; so what has two readings is refused.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use httparse::{EMPTY_HEADER, Error, Request, Status};

use super::refusal::{Reason, Refusal};
use crate::defaults::HANDSHAKE_BYTES_MAX;

/// Lines of a header: browsers send about 20, proxies add a handful.
const LINES_MAX: usize = 100;

/// A complete head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: String,
    pub(super) target: String,
    /// The `1` of `HTTP/1.1`.
    pub(super) minor: u8,
    pub(super) headers: HeaderMap,
    /// Its bytes.
    pub(super) used: usize,
}

impl Head {
    /// `None`: there is more to come.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, Refusal> {
        let mut lines = [EMPTY_HEADER; LINES_MAX];
        let mut request = Request::new(&mut lines);
        let used = match request.parse(bytes) {
            Ok(Status::Complete(used)) => used,
            // Parsed anew with every read, so bounded: a header without end would cost its square.
            Ok(Status::Partial) if bytes.len() < HANDSHAKE_BYTES_MAX => return Ok(None),
            Ok(Status::Partial) => {
                let body = format!("the request header is longer than {HANDSHAKE_BYTES_MAX} bytes");
                return Err(too_large(body));
            }
            Err(Error::TooManyHeaders) => {
                return Err(too_large(format!("the request header has more than {LINES_MAX} lines")));
            }
            Err(Error::Version) => {
                let body = "only HTTP/1.1 is understood here";
                return Err(Refusal::new(Reason::Malformed, 505, "HTTP Version Not Supported", body));
            }
            Err(error) => return Err(Refusal::bad_request(format!("this is no HTTP request: {error}"))),
        };
        // The library takes it as an end of line; a proxy before us may have seen one line where we see two.
        if has_bare_line_feed(&bytes[..used]) {
            return Err(Refusal::bad_request("a line of the request header ends without a carriage return"));
        }
        let mut headers = HeaderMap::with_capacity(request.headers.len());
        for line in request.headers.iter() {
            let name = HeaderName::from_bytes(line.name.as_bytes());
            let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line.value)) else {
                return Err(Refusal::bad_request("a line of the request header cannot be read"));
            };
            // Not `insert`: that a line stands there twice must be seen, to be refused.
            headers.append(name, value);
        }
        Ok(Some(Self {
            method: request.method.unwrap_or_default().to_owned(),
            target: request.path.unwrap_or_default().to_owned(),
            minor: request.version.unwrap_or_default(),
            headers,
            used,
        }))
    }

    /// The one value of a header; nothing when it is missing or there are several.
    pub(super) fn only(&self, name: &HeaderName) -> Option<String> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Some(String::from_utf8_lossy(value.as_bytes()).into_owned()),
            _ => None,
        }
    }

    /// The entries of all lines of a header that holds lists.
    pub(super) fn entries<'a>(&'a self, name: &HeaderName) -> impl Iterator<Item = &'a str> {
        let values = self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(str::trim).filter(|entry| !entry.is_empty())
    }

    /// Whether one of those is this token.
    pub(super) fn names(&self, name: &HeaderName, token: &str) -> bool {
        self.entries(name).any(|entry| entry.eq_ignore_ascii_case(token))
    }
}

fn too_large(body: String) -> Refusal {
    Refusal::new(Reason::Malformed, 431, "Request Header Fields Too Large", body)
}

fn has_bare_line_feed(bytes: &[u8]) -> bool {
    let mut before = 0;
    bytes.iter().any(|byte| std::mem::replace(&mut before, *byte) != b'\r' && *byte == b'\n')
}

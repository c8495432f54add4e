//! What a browser has to be told before a page of another origin may read an answer. Who is let in is decided by the
//! origin itself ([`super::Names`]): this only says so. Pure.

/// The origin of the page that asks, once it is let in; none: not a browser, or a page of our own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors(Option<Box<str>>);

impl Cors {
    /// A page of this origin was let in.
    #[must_use]
    pub fn of(origin: &str) -> Self {
        Self(Some(origin.into()))
    }

    /// Lines of a head.
    #[must_use]
    pub fn headers(&self) -> String {
        // Named, not `*`: a copy that a cache keeps for the one page is not for another.
        self.0.as_ref().map_or(String::new(), |origin| {
            format!("Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\n")
        })
    }

    /// The answer to what a browser asks before a request with a header of the page's own.
    #[must_use]
    pub fn preflight(&self, method: &str) -> Vec<u8> {
        let allowed = self.0.as_ref().map_or(String::new(), |_| {
            format!(
                "Access-Control-Allow-Methods: {method}\r\n\
                 Access-Control-Allow-Headers: authorization, cache-control, last-event-id\r\n\
                 Access-Control-Max-Age: 600\r\n"
            )
        });
        format!(
            "HTTP/1.1 204 No Content\r\nAllow: {method}, OPTIONS\r\n{allowed}{}Connection: close\r\n\r\n",
            self.headers()
        )
        .into_bytes()
    }
}

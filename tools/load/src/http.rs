//! As much of HTTP/1.1 as a cheap caller of an API needs: a POST on a connection that is kept, and answers that say how long
//! they are. It trusts its server.

/// Appends a POST of JSON.
pub fn post(out: &mut Vec<u8>, host: &str, path: &str, key: &str, body: &[u8]) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body);
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: &'a [u8],
    /// How many bytes it took, the head included.
    pub length: usize,
}

/// The first answer of `bytes`. `None` = not complete.
///
/// # Errors
/// It is none that this caller understands.
pub fn parse(bytes: &[u8]) -> Result<Option<Answer<'_>>, String> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let (Some(status), Some(length)) = (status, length) else {
        return Err(format!("an answer without status or length: {first:?}"));
    };
    let start = end + 4;
    Ok(bytes.get(start..start + length).map(|body| Answer { status, body, length: start + length }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_one_by_one() {
        let first = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        let both = [&first[..], b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"].concat();
        assert_eq!(parse(&both), Ok(Some(Answer { status: 200, body: b"{}", length: first.len() })));
        let length = both.len() - first.len();
        assert_eq!(parse(&both[first.len()..]), Ok(Some(Answer { status: 503, body: b"", length })));
        for cut in 0..first.len() {
            assert_eq!(parse(&first[..cut]), Ok(None), "cut at {cut}");
        }
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(parse(b"SSH-2.0\r\n\r\n").is_err());
    }

    #[test]
    fn a_call_is_what_a_server_reads() {
        let mut out = Vec::new();
        post(&mut out, "a:1", "/v1/publish", "k", b"{}");
        let text = String::from_utf8_lossy(&out);
        assert!(text.starts_with("POST /v1/publish HTTP/1.1\r\nHost: a:1\r\nAuthorization: Bearer k\r\n"));
        assert!(text.ends_with("Content-Length: 2\r\n\r\n{}"), "{text}");
    }
}

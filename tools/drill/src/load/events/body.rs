//! The body of a stream: chunks of HTTP/1.1, and in them lines of server-sent events. Pure: bytes in, events out.

/// An event with data, or an id alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dispatched {
    /// The id, if this event brought one.
    pub id: Option<String>,
    /// Its data, lines joined; empty: there is nothing to hear, and the id counts all the same.
    pub data: String,
}

/// A body under way.
#[derive(Debug, Default)]
pub(super) struct Body {
    raw: Vec<u8>,
    lines: Vec<u8>,
    id: Option<String>,
    data: Vec<String>,
    /// The last chunk came.
    whole: bool,
    end: Option<Result<(), String>>,
}

impl Body {
    /// With what came behind the head.
    pub(super) fn beginning(raw: Vec<u8>) -> Self {
        Self { raw, ..Self::default() }
    }

    /// Where bytes are read to.
    pub(super) const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.raw
    }

    /// TCP has ended.
    pub(super) fn ends(&mut self) {
        let cut = || Err("the body was cut".to_owned());
        let end = if self.whole && self.raw.is_empty() && self.lines.is_empty() { Ok(()) } else { cut() };
        self.end.get_or_insert(end);
    }

    /// Nothing more can be made of it.
    pub(super) fn fails(&mut self, reason: String) {
        self.end.get_or_insert(Err(reason));
    }

    /// How it ended, if it has.
    pub(super) fn end(&self) -> Option<Result<(), String>> {
        self.end.clone()
    }

    /// The next event that is complete.
    pub(super) fn next(&mut self) -> Option<Dispatched> {
        if matches!(self.end, Some(Err(_))) {
            return None;
        }
        if let Err(reason) = self.take_chunks() {
            self.fails(reason);
        }
        while let Some(at) = self.lines.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.lines.drain(..=at).collect();
            let line = String::from_utf8_lossy(&line[..at]).into_owned();
            if let Some(event) = self.line(&line) {
                return Some(event);
            }
        }
        None
    }

    fn take_chunks(&mut self) -> Result<(), String> {
        while let Some(at) = self.raw.windows(2).position(|two| two == b"\r\n") {
            let size = String::from_utf8_lossy(&self.raw[..at]).into_owned();
            let len =
                usize::from_str_radix(&size, 16).map_err(|_| format!("no size of a chunk: {size:.40}"))?;
            let end = at + 2 + len;
            if self.raw.len() < end + 2 {
                return Ok(());
            }
            if self.whole || &self.raw[end..end + 2] != b"\r\n" {
                return Err("a chunk that is not as long as it says, or behind the last".to_owned());
            }
            self.lines.extend_from_slice(&self.raw[at + 2..end]);
            self.raw.drain(..end + 2);
            self.whole = len == 0;
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Option<Dispatched> {
        if line.is_empty() {
            let (id, data) = (self.id.take(), std::mem::take(&mut self.data));
            return (!data.is_empty() || id.is_some()).then(|| Dispatched { id, data: data.join("\n") });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "data" => self.data.push(value.to_owned()),
            // The name says what the frame says, and `retry` what `drain` and `bye` do.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &[u8] =
        b"a\r\nretry: 1\n\n\r\n9\r\nid: e:58\n\r\n11\r\ndata: 1\ndata: 2\n\n\r\n2\r\n:\n\r\n0\r\n\r\n";

    #[test]
    fn events_come_in_whatever_pieces_and_the_end_is_whole() {
        for piece in 1..SENT.len() {
            let (mut body, mut events) = (Body::default(), Vec::new());
            for part in SENT.chunks(piece) {
                body.buffer().extend_from_slice(part);
                events.extend(std::iter::from_fn(|| body.next()));
            }
            assert_eq!(events, [Dispatched { id: Some("e:58".into()), data: "1\n2".into() }], "{piece}");
            body.ends();
            assert_eq!(body.end(), Some(Ok(())));
        }
    }

    #[test]
    fn an_id_of_several_rooms_comes_alone() {
        let mut body =
            Body::beginning(b"8\r\ndata: 1\n\r\n1\r\n\n\r\nd\r\nid: e:a=1,b=2\r\n2\r\n\n\n\r\n".to_vec());
        let events: Vec<_> = std::iter::from_fn(|| body.next()).collect();
        let of = |id: Option<&str>, data: &str| Dispatched { id: id.map(str::to_owned), data: data.into() };
        assert_eq!(events, [of(None, "1"), of(Some("e:a=1,b=2"), "")]);
    }

    #[test]
    fn a_body_that_is_cut_says_so() {
        for cut in [SENT.len() - 1, SENT.len() - 5, 20, 0] {
            let mut body = Body::beginning(SENT[..cut].to_vec());
            while body.next().is_some() {}
            assert_eq!(body.end(), None);
            body.ends();
            assert!(matches!(body.end(), Some(Err(_))), "{cut}");
        }
        let mut body = Body::beginning(b"zz\r\n".to_vec());
        assert_eq!(body.next(), None);
        assert!(matches!(body.end(), Some(Err(_))));
    }
}

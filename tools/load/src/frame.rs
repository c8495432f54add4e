//! As much of WebSocket as a cheap client needs: its upgrade request, its frames, and the frames of a server that it
//! trusts. It verifies neither the accept key nor UTF-8, and it masks with zeros: the server's work is the same.

/// Opcode of text.
pub const TEXT: u8 = 0x1;
/// Opcode of a close.
pub const CLOSE: u8 = 0x8;
/// Opcode of a ping.
pub const PING: u8 = 0x9;
/// Opcode of a pong.
pub const PONG: u8 = 0xa;

/// The upgrade request, with a token if there is one.
#[must_use]
pub fn request(host: &str, token: Option<&str>) -> Vec<u8> {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let text = format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{token}\r\n"
    );
    text.into_bytes()
}

/// Appends a frame as clients send them.
pub fn client_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    header(out, opcode, payload.len(), 0x80);
    // A mask of zeros: the rule asks for a mask, and the bytes need not be touched.
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// Appends a frame as servers send them.
pub fn server_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    header(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

fn header(out: &mut Vec<u8>, opcode: u8, length: usize, mask: u8) {
    out.push(0x80 | opcode);
    match u8::try_from(length) {
        Ok(short) if short < 126 => out.push(mask | short),
        _ => match u16::try_from(length) {
            Ok(middle) => {
                out.push(mask | 126);
                out.extend_from_slice(&middle.to_be_bytes());
            }
            Err(_) => {
                out.push(mask | 127);
                out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        },
    }
}

/// Appends a close frame as clients send them.
pub fn client_close(out: &mut Vec<u8>, code: u16) {
    client_frame(out, CLOSE, &code.to_be_bytes());
}

/// The first frame of `bytes`, from a server: opcode, payload and how many bytes it took. `None` = not complete.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (&first, rest) = bytes.split_first()?;
    let (&short, rest) = rest.split_first()?;
    let (length, start) = match short & 0x7f {
        126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?, 10),
        short => (usize::from(short), 2),
    };
    let end = start + length;
    Some((first & 0xf, bytes.get(start..end)?, end))
}

/// The number after `key` in a frame, for example after `"seq":`.
#[must_use]
pub fn number_after(payload: &[u8], key: &[u8]) -> Option<u64> {
    let at = payload.windows(key.len()).position(|window| window == key)?;
    let digits = payload[at + key.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |sum, digit| Some(sum.unwrap_or(0) * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_size_are_read_back() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let mut bytes = Vec::new();
            server_frame(&mut bytes, TEXT, &payload);
            assert_eq!(parse(&bytes), Some((TEXT, &payload[..], bytes.len())));
            for cut in [0, 1, bytes.len() - 1] {
                assert_eq!(parse(&bytes[..cut]), None, "{length} bytes cut at {cut}");
            }
        }
    }

    #[test]
    fn numbers_are_found() {
        assert_eq!(number_after(br#"{"msg":"a","seq":58,"at":1}"#, b"\"seq\":"), Some(58));
        assert_eq!(number_after(br#"{"msg":"a"}"#, b"\"seq\":"), None);
        assert_eq!(number_after(br#"{"seq":"x"}"#, b"\"seq\":"), None);
    }
}

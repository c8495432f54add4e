//! Lines as the judge reads them. Pure: appends to a buffer, without its newline.

use std::io::Write;

use serde::Serialize;
use sluice_judge::record::ClientEvent;

/// A delivery, borrowed: [`ClientEvent::Got`].
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// Over which connection.
    pub conn: u32,
    /// Of which room.
    pub room: &'a str,
    /// Its position.
    pub seq: u64,
    /// Who published it.
    pub from: &'a str,
    /// Its key, when its publisher chose one.
    pub key: Option<&'a str>,
    /// Hash of its data.
    pub hash: u64,
}

/// Any line.
pub(super) fn entry(bytes: &mut Vec<u8>, at_us: u64, client: u32, what: &ClientEvent) {
    json(bytes, &(at_us, client, what));
}

/// A delivery.
pub(super) fn got(bytes: &mut Vec<u8>, at_us: u64, client: u32, delivery: &Delivery<'_>) {
    let Delivery { conn, room, seq, from, key, hash } = *delivery;
    write!(bytes, "[{at_us},{client},{{\"got\":{{\"conn\":{conn},\"room\":").ok(); // memory takes everything
    text(bytes, room);
    write!(bytes, ",\"seq\":{seq},\"from\":").ok();
    text(bytes, from);
    bytes.extend_from_slice(b",\"key\":");
    match key {
        Some(key) => text(bytes, key),
        None => bytes.extend_from_slice(b"null"),
    }
    write!(bytes, ",\"hash\":{hash}}}}}]").ok();
}

/// A string; nearly all need no escape.
fn text(bytes: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\') {
        bytes.push(b'"');
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(b'"');
    } else {
        json(bytes, text);
    }
}

fn json(bytes: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(bytes, value).ok(); // strings, numbers and lists alone: cannot fail
}

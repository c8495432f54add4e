//! What a request holds: a JSON body of bounded size and time, parameters, the idempotency key. Whatever is wrong with
//! it is a problem that names the place.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use sluice_proto::ids::Key;
use sluice_proto::limits::FRAME_BYTES_MAX;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::api::Api;
use crate::api::problem::{Code, Problem};
use crate::defaults::{API_BODY_WITHIN, API_BULK_BYTES_MAX, API_DISCARDED_BYTES_MAX, API_TURN_WITHIN};

/// The header that carries the key of a publish.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A JSON body for one message.
pub(in crate::api) struct JsonBody<T>(pub(in crate::api) T);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Arc<Api>) -> Result<Self, Problem> {
        read(request, FRAME_BYTES_MAX).await.map(Self)
    }
}

/// A JSON body for many messages, and its place among those that are held at once.
pub(in crate::api) struct BulkBody<T>(pub(in crate::api) T, pub(in crate::api) OwnedSemaphorePermit);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for BulkBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Problem> {
        let turn = timeout(API_TURN_WITHIN, Arc::clone(&api.bulk).acquire_owned()).await;
        let full = || Problem::new(Code::RateLimited, "too many large calls are under way: wait for answers");
        let turn = turn.ok().and_then(Result::ok).ok_or_else(full)?;
        Ok(Self(read(request, API_BULK_BYTES_MAX).await?, turn))
    }
}

/// Parameters after the question mark.
pub(in crate::api) struct Params<T>(pub(in crate::api) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(Problem::bad(format!("the parameters cannot be read: {}", error.body_text()))),
        }
    }
}

/// The header `Idempotency-Key`, as a text or as a quoted one.
pub(in crate::api) struct IdempotencyKey(Option<String>);

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(&parts.headers)
    }
}

impl IdempotencyKey {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(key) = given.next() else { return Ok(Self(None)) };
        let wrong = |what: &str| Problem::bad(format!("the header Idempotency-Key {what}"));
        if given.next().is_some() {
            return Err(wrong("is there twice"));
        }
        let key = std::str::from_utf8(key.as_bytes()).map_err(|_| wrong("is not UTF-8"))?.trim();
        let unquoted = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
        // Here, also for a batch, whose items would each be refused for it.
        match Key::parse_from_client(unquoted) {
            Ok(_) => Ok(Self(Some(unquoted.to_owned()))),
            Err(error) => Err(wrong(&format!("holds none: {error}"))),
        }
    }

    /// The key of a message of a batch.
    pub(super) fn of_item(&self, place: usize) -> Option<String> {
        self.0.as_ref().map(|key| format!("{key}/{place}"))
    }
}

/// The key of the body or of the header, which may not contradict each other.
pub(super) fn one_key(
    given: Option<String>,
    IdempotencyKey(header): IdempotencyKey,
) -> Result<Option<String>, Problem> {
    match (given, header) {
        (Some(body), Some(header)) if body != header => {
            Err(Problem::bad("key and the header Idempotency-Key differ: leave one of them out"))
        }
        (body, header) => Ok(body.or(header)),
    }
}

async fn read<T: DeserializeOwned>(request: Request, bytes_max: usize) -> Result<T, Problem> {
    is_json(request.headers())?;
    let too_large = || Problem::new(Code::TooLarge, format!("the body has more than {bytes_max} bytes"));
    // Said before it is read, where the length is known.
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length = length.and_then(|length| length.parse::<u64>().ok());
    let mut body = request.into_body();
    if length.is_some_and(|length| length > bytes_max as u64) {
        discard(&mut body).await;
        return Err(too_large());
    }
    let read = timeout(API_BODY_WITHIN, Limited::new(&mut body, bytes_max).collect()).await;
    let bytes = match read {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            discard(&mut body).await;
            return Err(too_large());
        }
        Ok(Err(error)) => return Err(Problem::bad(format!("the body broke off: {error}"))),
        Err(_) => {
            let seconds = API_BODY_WITHIN.as_secs();
            return Err(Problem::bad(format!("the body did not arrive within {seconds} s")));
        }
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        Problem::bad(format!("the body is not UTF-8 from byte {} on", error.valid_up_to()))
    })?;
    serde_json::from_str(text).map_err(|error| Problem::bad(format!("the body cannot be read: {error}")))
}

/// Takes some of what is too much, and keeps nothing of it: whoever is still sending when the connection ends reads no
/// answer.
async fn discard(body: &mut Body) {
    let mut left = API_DISCARDED_BYTES_MAX;
    let take = async {
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            left = left.saturating_sub(bytes);
            if left == 0 {
                return;
            }
        }
    };
    let _ = timeout(API_TURN_WITHIN, take).await;
}

/// Without a word of what it is, a body is taken for JSON.
fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let said = kind.to_str().unwrap_or_default();
    let essence = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    let detail = format!("the body is said to be {said:?}, it must be application/json");
    Err(Problem::new(Code::UnsupportedMediaType, detail))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn key_of(header: &'static [u8]) -> Result<Option<String>, String> {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_bytes(header).expect("a header"));
        IdempotencyKey::of(&headers).map(|key| key.0).map_err(|problem| problem.detail)
    }

    #[test]
    fn an_idempotency_key_may_be_quoted() {
        for key in [&b"k1"[..], b"\"k1\"", b"  k1 "] {
            assert_eq!(key_of(key), Ok(Some("k1".into())));
        }
        assert_eq!(key_of("é".as_bytes()), Ok(Some("é".into())));
        for (bad, says) in
            [(&b""[..], "empty"), (b"\"\"", "empty"), (b"\xff", "UTF-8"), (&[b'k'; 129], "128")]
        {
            assert!(key_of(bad).is_err_and(|detail| detail.contains(says)));
        }
        let header = || IdempotencyKey(Some("h".into()));
        assert_eq!(one_key(None, header()), Ok(Some("h".into())));
        assert_eq!(one_key(Some("h".into()), header()), Ok(Some("h".into())));
        assert!(one_key(Some("b".into()), header()).is_err());
        assert_eq!(header().of_item(3).as_deref(), Some("h/3"));
    }

    #[test]
    fn only_json_is_taken() {
        let said = |kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            is_json(&headers).is_ok()
        };
        assert!(
            said("application/json") && said("Application/JSON; charset=utf-8") && said("application/a+json")
        );
        assert!(!said("text/plain") && !said("") && !said("application/x-www-form-urlencoded"));
        assert!(is_json(&HeaderMap::new()).is_ok());
    }
}

//! The API over gRPC, `sluice.api.v1`: the same calls on the same port, each passed on to the service. Decides nothing.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use serde_json::value::RawValue;
use sluice_proto::api as proto;
use sluice_proto::api::api_server::{self, ApiServer};
use sluice_trace::Parent;
use tonic::{Request, Response, Status};

use super::Api;
use super::caller::{Caller, Handed};
use super::calls::Broadcast;
use super::keys::ApiKey;
use super::problem::Problem;
use super::send::{Draft, When};
use super::status::status;
use super::types::{
    DisconnectBody, Disconnected, ExportQuery, HistoryQuery, ItemResult, PresenceQuery, Published, Results,
    RoomsQuery, Scheduled, ScheduledQuery, StoredMessage, UnsubscribeBody, Unsubscribed,
};
use crate::defaults::API_BULK_BYTES_MAX;

/// The service.
pub(super) struct Grpc(pub(super) Arc<Api>);

impl Grpc {
    pub(super) fn into_server(self) -> ApiServer<Self> {
        ApiServer::new(self).max_decoding_message_size(API_BULK_BYTES_MAX)
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn key_of<T>(request: &Request<T>) -> Result<Arc<ApiKey>, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.map(|caller| caller.0).ok_or_else(|| Status::unauthenticated("this call asks for a key"))
}

fn answer<T, U: From<T>>(answered: Result<T, Problem>) -> Answer<U> {
    match answered {
        Ok(reply) => Ok(Response::new(reply.into())),
        Err(problem) => Err(status(&problem)),
    }
}

#[tonic::async_trait]
impl api_server::Api for Grpc {
    async fn publish(&self, request: Request<proto::PublishRequest>) -> Answer<proto::PublishReply> {
        let (api_key, parent) = (key_of(&request)?, Parent::of(request.metadata().as_ref()));
        let proto::PublishRequest { room, data, key, from } = request.into_inner();
        answer(self.0.publish(&api_key, Draft { room, data, key, from, when: When::Now, parent }).await)
    }

    async fn broadcast(&self, request: Request<proto::BroadcastRequest>) -> Answer<proto::ResultsReply> {
        let (api_key, parent) = (key_of(&request)?, Parent::of(request.metadata().as_ref()));
        let proto::BroadcastRequest { rooms, data, key, from } = request.into_inner();
        answer(self.0.broadcast(&api_key, Broadcast { rooms, data, key, from, parent }).await)
    }

    async fn batch(&self, request: Request<proto::BatchRequest>) -> Answer<proto::ResultsReply> {
        use proto::batch_item::When as Said;

        let (api_key, parent) = (key_of(&request)?, Parent::of(request.metadata().as_ref()));
        let draft = |item: proto::BatchItem| {
            let proto::BatchItem { room, data, key, from, when } = item;
            let when = when.map_or(When::Now, |when| match when {
                Said::DelayMs(ms) => When::In(ms),
                Said::AtMs(ms) => When::At(ms),
            });
            Draft { room, data, key, from, when, parent }
        };
        let drafts = request.into_inner().messages.into_iter().map(draft).collect();
        answer(self.0.batch(&api_key, drafts).await)
    }

    async fn history(&self, request: Request<proto::HistoryRequest>) -> Answer<proto::HistoryReply> {
        let api_key = key_of(&request)?;
        let proto::HistoryRequest { room, before, after, limit } = request.into_inner();
        let query = HistoryQuery { room, before, after, limit };
        let page = self.0.history(&api_key, query).await.map_err(|problem| status(&problem))?;
        Ok(Response::new(proto::HistoryReply {
            room: page.room,
            epoch: page.epoch,
            oldest: page.oldest,
            head: page.head,
            messages: page.messages.into_iter().map(Into::into).collect(),
            more: page.more,
            before: page.before,
            after: page.after,
        }))
    }

    type ExportStream = Pin<Box<dyn Stream<Item = Result<proto::ExportReply, Status>> + Send>>;

    async fn export(&self, request: Request<proto::ExportRequest>) -> Answer<Self::ExportStream> {
        let api_key = key_of(&request)?;
        let calls = request.extensions().get::<Handed>().cloned().unwrap_or_default();
        let proto::ExportRequest { room, after } = request.into_inner();
        let call = calls.take().ok_or_else(|| Status::internal("the call is gone"))?;
        match self.0.export(&api_key, ExportQuery { room, after: Some(after) }, call).await {
            Ok(export) => {
                let lines = export.lines().map(|lines| match lines {
                    Ok(lines) => Ok(proto::ExportReply { lines }),
                    Err(never) => match never {},
                });
                Ok(Response::new(Box::pin(lines) as Self::ExportStream))
            }
            Err(refused) => {
                let (call, problem) = *refused;
                calls.give_back(call);
                Err(status(&problem))
            }
        }
    }

    async fn presence(&self, request: Request<proto::PresenceRequest>) -> Answer<proto::PresenceReply> {
        use proto::presence_request::Of;

        let api_key = key_of(&request)?;
        let proto::PresenceRequest { of, after, limit } = request.into_inner();
        let (room, user) = match of {
            Some(Of::Room(room)) => (Some(room), None),
            Some(Of::User(user)) => (None, Some(user)),
            None => (None, None),
        };
        let query = PresenceQuery { room, user, after, limit };
        let present = self.0.presence(&api_key, query).await.map_err(|problem| status(&problem))?;
        let user = |user: super::types::PresentUser| proto::PresentUser {
            user: user.user,
            connections: user.connections,
            since_ms: user.since,
            info: user.info.as_deref().map(bytes_of),
        };
        Ok(Response::new(proto::PresenceReply {
            count: present.count,
            connections: present.connections,
            users: present.users.into_iter().map(user).collect(),
            more: present.more,
        }))
    }

    async fn rooms(&self, request: Request<proto::RoomsRequest>) -> Answer<proto::RoomsReply> {
        let api_key = key_of(&request)?;
        let proto::RoomsRequest { prefix, after, limit } = request.into_inner();
        let query = RoomsQuery { prefix: Some(prefix), after: Some(after), limit };
        let rooms = self.0.rooms(&api_key, query).await.map_err(|problem| status(&problem))?;
        let room = |room: super::types::Room| proto::Room {
            room: room.room,
            head: room.head,
            at_ms: room.at,
            subscribers: room.subscribers,
        };
        Ok(Response::new(proto::RoomsReply {
            epoch: rooms.epoch,
            rooms: rooms.rooms.into_iter().map(room).collect(),
            more: rooms.more,
            after: rooms.after,
        }))
    }

    async fn schedule(&self, request: Request<proto::ScheduleRequest>) -> Answer<proto::ScheduleReply> {
        use proto::schedule_request::When as Said;

        let (api_key, parent) = (key_of(&request)?, Parent::of(request.metadata().as_ref()));
        let proto::ScheduleRequest { room, data, key, from, when } = request.into_inner();
        let when = when.map_or(When::Now, |when| match when {
            Said::DelayMs(ms) => When::In(ms),
            Said::AtMs(ms) => When::At(ms),
        });
        answer(self.0.schedule(&api_key, Draft { room, data, key, from, when, parent }).await)
    }

    async fn cancel(&self, request: Request<proto::CancelRequest>) -> Answer<proto::CancelReply> {
        let api_key = key_of(&request)?;
        let proto::CancelRequest { room, key, from } = request.into_inner();
        let cancelled = self.0.cancel(&api_key, room, key, from).await.map_err(|problem| status(&problem))?;
        let super::types::Cancelled { room, key, cancelled } = cancelled;
        Ok(Response::new(proto::CancelReply { room, key, cancelled }))
    }

    async fn scheduled(&self, request: Request<proto::ScheduledRequest>) -> Answer<proto::ScheduledReply> {
        let api_key = key_of(&request)?;
        let proto::ScheduledRequest { room, after_from, after_key, limit } = request.into_inner();
        let query = ScheduledQuery { room, after_from, after_key, limit };
        let waiting = self.0.scheduled(&api_key, query).await.map_err(|problem| status(&problem))?;
        let message = |message: super::types::WaitingMessage| proto::WaitingMessage {
            from: message.from,
            key: message.key,
            due_ms: message.due,
            data: bytes_of(&message.data),
        };
        Ok(Response::new(proto::ScheduledReply {
            room: waiting.room,
            messages: waiting.messages.into_iter().map(message).collect(),
            more: waiting.more,
        }))
    }

    async fn disconnect(&self, request: Request<proto::DisconnectRequest>) -> Answer<proto::DisconnectReply> {
        let api_key = key_of(&request)?;
        let proto::DisconnectRequest { user, session, keep_tokens, issued_until_s } = request.into_inner();
        let body = DisconnectBody { user, session, keep_tokens, issued_until: issued_until_s };
        answer(self.0.disconnect(&api_key, body).await)
    }

    async fn unsubscribe(
        &self,
        request: Request<proto::UnsubscribeRequest>,
    ) -> Answer<proto::UnsubscribeReply> {
        let api_key = key_of(&request)?;
        let proto::UnsubscribeRequest { user, session, room } = request.into_inner();
        answer(self.0.unsubscribe(&api_key, UnsubscribeBody { user, session, room }).await)
    }

    async fn info(&self, request: Request<proto::InfoRequest>) -> Answer<proto::InfoReply> {
        let info = serde_json::to_vec(&self.0.info(&*key_of(&request)?));
        let json = info.map_err(|error| Status::internal(error.to_string()))?.into();
        Ok(Response::new(proto::InfoReply { json }))
    }
}

fn bytes_of(json: &RawValue) -> Bytes {
    Bytes::copy_from_slice(json.get().as_bytes())
}

impl From<Published> for proto::PublishReply {
    fn from(published: Published) -> Self {
        let Published { room, seq, epoch, key, duplicate } = published;
        Self { room, seq, epoch, key, duplicate }
    }
}

impl From<Scheduled> for proto::ScheduleReply {
    fn from(scheduled: Scheduled) -> Self {
        let Scheduled { room, due, seq, key } = scheduled;
        Self { room, due_ms: due, seq, key }
    }
}

impl From<Disconnected> for proto::DisconnectReply {
    fn from(done: Disconnected) -> Self {
        let gateways = done.gateways.into_iter();
        let gateways =
            gateways.map(|it| proto::GatewayCount { instance: it.instance, count: it.connections }).collect();
        Self { revoked_until_s: done.revoked_until, connections: done.connections, gateways }
    }
}

impl From<Unsubscribed> for proto::UnsubscribeReply {
    fn from(done: Unsubscribed) -> Self {
        let gateways = done.gateways.into_iter();
        let gateways = gateways
            .map(|it| proto::GatewayCount { instance: it.instance, count: it.subscriptions })
            .collect();
        Self { subscriptions: done.subscriptions, gateways }
    }
}

impl From<Results> for proto::ResultsReply {
    fn from(results: Results) -> Self {
        use proto::item_result::Outcome;

        let result = |result: ItemResult| {
            let outcome = match result {
                ItemResult::Published(published) => Outcome::Published(published.into()),
                ItemResult::Scheduled(scheduled) => Outcome::Scheduled(scheduled.into()),
                ItemResult::Failed(failed) => Outcome::Failed(proto::Failure {
                    room: failed.room,
                    code: failed.error.code.as_str().to_owned(),
                    detail: failed.error.detail,
                    retry: failed.error.retry,
                }),
            };
            proto::ItemResult { outcome: Some(outcome) }
        };
        Self { results: results.results.into_iter().map(result).collect() }
    }
}

impl From<StoredMessage> for proto::StoredMessage {
    fn from(message: StoredMessage) -> Self {
        let StoredMessage { seq, from, key, at, data } = message;
        Self { seq, from, key, at_ms: at, data: bytes_of(&data) }
    }
}

//! The Rust client of Sluice: publishes that survive reconnects in order and once, subscriptions that resume by
//! themselves from the last message seen, and honest events where continuity was lost.
//!
//! A connection runs in one task that ends when the last [`Client`] is dropped. Every queue in it is bounded: publishes
//! wait for space in the outbox, and a reader of events that falls behind makes the client stop reading its socket,
//! so keep reading [`Events`] while you wait for answers. It speaks `ws://`, and `wss://` with
//! the authorities that browsers trust and those of [`Options::trust`]. Tokens that end are replaced while it is connected
//! where [`Options::token_from`] names who has others.
//!
//! ```no_run
//! # async fn example() -> Result<(), sluice_client::Error> {
//! use sluice_client::{Client, Event, Options, Position};
//! let (client, mut events) = Client::connect(Options::new("ws://127.0.0.1:8080/ws").token("eyJ…")).await?;
//! client.subscribe("news", Position::Now).await?;
//! let stored = client.publish("news", &serde_json::json!({"t": "hi"})).await?;
//! while let Some(event) = events.next().await {
//!     if let Event::Message(message) = event {
//!         assert_eq!(message.seq, stored.seq);
//!         break;
//!     }
//! }
//! # Ok(()) }
//! ```

mod backoff;
mod client;
mod defaults;
mod driver;
mod error;
mod event;
mod frame;
mod options;
pub mod raw;
mod state;
mod tls;
mod tokens;
mod wire;

pub use client::{Client, Events, Receipt, random_key};
pub use error::Error;
pub use event::{Due, Event, HistoryPage, Message, Scheduled, Stored, Subscribed};
pub use options::{Options, Position};
pub use sluice_proto::wire::codec::{HistoryRange, PresentPage, PresentUser};
pub use sluice_proto::wire::{Bye, Drain, ErrorCode, Welcome, WireError};
pub use tls::Trust;
pub use tokens::TokenError;

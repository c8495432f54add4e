//! `sluice pub`: publishes one message and says where it was stored.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::value::RawValue;
use sluice_client::Client;

use crate::target::Target;

/// Publish a message to a room and wait until it is stored
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sluice pub news '{\"t\":\"hi\"}' --token eyJ…
  sluice pub news '\"just text\"' --key order-17      (the same key stores it once)")]
pub(crate) struct Arguments {
    /// The room
    room: String,
    /// The message, any JSON
    json: String,
    /// Name of this message: publishing it again with the same key stores nothing new
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let data: Box<RawValue> = serde_json::from_str(&arguments.json).with_context(|| {
        format!("{:?} is not JSON; text needs quotes of its own: '\"text\"'", arguments.json)
    })?;
    let (client, mut events) = Client::connect(arguments.target.options()).await?;
    let publish = async {
        match &arguments.key {
            Some(key) => client.publish_as(&arguments.room, key, &data).await,
            None => client.publish(&arguments.room, &data).await,
        }
    };
    let stored = tokio::select! {
        stored = publish => stored?,
        () = async { while events.next().await.is_some() {} } => anyhow::bail!("the connection ended for good"),
    };
    println!("{}", serde_json::json!({"room": arguments.room, "seq": stored.seq, "key": stored.key}));
    client.close().await;
    Ok(ExitCode::SUCCESS)
}

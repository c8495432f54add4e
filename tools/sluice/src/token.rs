//! `sluice token`: makes and explains tokens.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use sluice_launcher::token::{self, Claims, Grants};
use sluice_program::output;
use sluice_program::secret::TokenSecret;

/// Make a token for a user, or explain one
#[derive(clap::Args)]
#[command(
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  SLUICE_TOKEN_SECRET=\"$SECRET\" sluice token --user ann --sub 'news.*' --sub @ann --pub 'news.*'
  sluice token --user ann --sub lobby --info '{\"name\":\"Ann\"}'   # as others see her in presence
  sluice token --user admin --sub '*' --pub '*' --ttl 10m --token-secret-file secret.txt
  sluice token check \"$TOKEN\" --token-secret \"$SECRET\""
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The user the token is for
    #[arg(long, required = true)]
    user: Option<String>,
    /// Rooms to subscribe to: a name, or a prefix ending in *; may be repeated
    #[arg(long, value_name = "PATTERN")]
    sub: Vec<String>,
    /// Rooms to publish to: a name, or a prefix ending in *; may be repeated
    #[arg(long = "pub", value_name = "PATTERN")]
    publish: Vec<String>,
    /// How long it is good for: 90s, 15m, 1h, 7d
    #[arg(long, default_value = "1h", value_parser = duration)]
    ttl: Duration,
    /// Its `iss`, where logic asks for one in token_claims.issuer
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Its `aud`, where logic asks for one in token_claims.audience
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// What others are told of the user in presence: any JSON, at most 1 KiB
    #[arg(long, value_name = "JSON", value_parser = json)]
    info: Option<Value>,
    #[command(flatten)]
    secret: TokenSecret,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Say whether a token would be accepted, and if not, why
    Check {
        /// The token
        jwt: String,
        #[command(flatten)]
        secret: TokenSecret,
    },
}

fn given(secret: &TokenSecret) -> anyhow::Result<String> {
    secret.read("sluice")?.context(
        "the secret is missing: give --token-secret or --token-secret-file, or set SLUICE_TOKEN_SECRET or \
         SLUICE_TOKEN_SECRET_FILE",
    )
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Some(Verb::Check { jwt, secret }) = arguments.verb {
        return match token::check(&given(&secret)?, jwt.trim()) {
            Ok(claims) => {
                output::line(serde_json::to_string_pretty(&claims)?)?;
                Ok(ExitCode::SUCCESS)
            }
            Err(refused) => bail!("this token would be refused: {refused}"),
        };
    }
    let secret = given(&arguments.secret)?;
    let user = arguments.user.unwrap_or_default();
    if arguments.sub.is_empty() && arguments.publish.is_empty() {
        let only = format!("this token is good for the user's own room @{user} alone");
        output::note(format_args!("note: without --sub and --pub {only}"));
    }
    let grants = Grants { sub: arguments.sub, publish: arguments.publish };
    let claims = Claims {
        sub: user,
        exp: token::ending_in(arguments.ttl),
        iat: Some(token::now_s()),
        grants,
        iss: arguments.issuer,
        aud: arguments.audience.map(Into::into),
        info: arguments.info,
    };
    output::line(token::sign(&secret, &claims)?)?;
    Ok(ExitCode::SUCCESS)
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("this is no JSON ({error}), for example '\"Ann\"' is"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("use a number and s, m, h or d, for example 15m".into()),
    };
    let number: u64 =
        number.parse().map_err(|_| "use a number and s, m, h or d, for example 15m".to_owned())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "that is too long".into())
}

//! `sluice token`: makes and explains tokens.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use sluice_launcher::token::{self, Claims, Grants, SigningKey, VerifyingKeys};
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
  sluice token check \"$TOKEN\" --token-secret \"$SECRET\"
  openssl genpkey -algorithm ed25519 -out k1.pem   # or: rsa -pkeyopt rsa_keygen_bits:3072, ec -pkeyopt ec_paramgen_curve:P-256
  sluice token --user ann --sub lobby --key k1.pem --kid k1
  sluice token jwks --key k1.pem --kid k1   # what a provider publishes, for token_keys.jwks_url
  sluice token check \"$TOKEN\" --key k1.pem   # or the public key, or a JWK set"
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
    /// PEM file of the private key to sign with, instead of a secret: RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA)
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Its `kid`, by which logic finds the key
    #[arg(long, value_name = "NAME")]
    kid: Option<String>,
    /// What it must be signed with; the type of the key says it anyway
    #[arg(long, value_name = "ALGORITHM", value_enum)]
    alg: Option<Algorithm>,
    #[command(flatten)]
    secret: TokenSecret,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Say whether a token would be accepted, and if not, why
    Check {
        /// The token
        jwt: String,
        /// File with what verifies it, instead of a secret: a public or private key in PEM, or a JWK set
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        #[command(flatten)]
        secret: TokenSecret,
    },
    /// Print the JWK set of a key: what verifies its tokens, for everybody to see
    Jwks {
        /// PEM file of the private key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Its `kid`
        #[arg(long, value_name = "NAME")]
        kid: Option<String>,
    },
}

/// The algorithms that logic accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Algorithm {
    #[value(name = "HS256")]
    Hs256,
    #[value(name = "RS256")]
    Rs256,
    #[value(name = "ES256")]
    Es256,
    #[value(name = "EdDSA")]
    EdDsa,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

fn file(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("--key {}", path.display()))
}

fn private_key(path: &Path, kid: Option<&str>) -> anyhow::Result<SigningKey> {
    let key = SigningKey::from_pem(&file(path)?).with_context(|| format!("--key {}", path.display()))?;
    Ok(match kid {
        Some(kid) => key.named(kid),
        None => key,
    })
}

fn given(secret: &TokenSecret) -> anyhow::Result<String> {
    secret.read("sluice")?.context(
        "the secret is missing: give --token-secret or --token-secret-file, or set SLUICE_TOKEN_SECRET or \
         SLUICE_TOKEN_SECRET_FILE",
    )
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (key, asked) = match &arguments.verb {
        Some(Verb::Check { jwt, key, secret }) => return check(jwt, key.as_deref(), secret),
        Some(Verb::Jwks { key, kid }) => {
            let set = json!({"keys": [private_key(key, kid.as_deref())?.public()?]});
            output::line(serde_json::to_string_pretty(&set)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        None => (signing_key(&arguments)?, arguments.alg),
    };
    let own = format!("{:?}", key.algorithm());
    if let Some(asked) = asked.filter(|asked| asked.name() != own) {
        bail!(
            "--alg is {}, and the key signs with {own}: leave --alg out, or name another key",
            asked.name()
        );
    }
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
    output::line(token::sign_with(&key, &claims)?)?;
    Ok(ExitCode::SUCCESS)
}

fn signing_key(arguments: &Arguments) -> anyhow::Result<SigningKey> {
    let kid = arguments.kid.as_deref();
    match &arguments.key {
        Some(path) => private_key(path, kid),
        None => {
            let key = SigningKey::secret(&given(&arguments.secret)?);
            Ok(match kid {
                Some(kid) => key.named(kid),
                None => key,
            })
        }
    }
}

fn check(jwt: &str, key: Option<&Path>, secret: &TokenSecret) -> anyhow::Result<ExitCode> {
    let keys = match key {
        Some(path) => {
            VerifyingKeys::read(&file(path)?).with_context(|| format!("--key {}", path.display()))?
        }
        None => VerifyingKeys::secret(&given(secret)?),
    };
    match token::check_with(&keys, jwt.trim()) {
        Ok(claims) => {
            output::line(serde_json::to_string_pretty(&claims)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(refused) => bail!("this token would be refused: {refused}"),
    }
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

//! Configuration: the order of sources, types by what fits, and the texts people see.

use std::fs;

use serde::{Deserialize, Serialize};
use sluice_service::config::sections::Grpc;
use sluice_service::config::{ConfigError, Loaded, load_with_warnings, masked_toml};
use sluice_service::telemetry::Format;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    listen: String,
    prefix: String,
    anonymous: bool,
    token_secret: Option<String>,
    seeds: Vec<String>,
    weight: f64,
    limit: Option<u32>,
    drain: Drain,
    log: Log,
    grpc: Grpc,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            prefix: "sluice".into(),
            anonymous: false,
            token_secret: None,
            seeds: Vec::new(),
            weight: 1.0,
            limit: None,
            drain: Drain::default(),
            log: Log::default(),
            grpc: Grpc::at(7070),
        }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Drain {
    rate_per_s: u32,
    accept_grace_ms: u64,
}

impl Default for Drain {
    fn default() -> Self {
        Self { rate_per_s: 500, accept_grace_ms: 0 }
    }
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Log {
    format: Format,
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

fn load(
    file: Option<&str>,
    env: &[(&str, &str)],
    set: &[(&str, &str)],
) -> Result<Loaded<Config>, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sluice.toml");
    if let Some(text) = file {
        fs::write(&path, text).unwrap();
    }
    load_with_warnings(file.map(|_| path.as_path()), pairs(env).into_iter(), &pairs(set))
}

fn refused(file: Option<&str>, env: &[(&str, &str)], set: &[(&str, &str)]) -> String {
    load(file, env, set).unwrap_err().to_string()
}

#[test]
fn later_sources_win_and_the_rest_stays() {
    let file = "prefix = \"file\"\nlisten = \"file:1\"\nseeds = [\"a:1\"]\n[drain]\nrate_per_s = 7\n";
    let env = [("SLUICE_PREFIX", "env"), ("SLUICE_LISTEN", "env:1"), ("PATH", "/bin")];
    let loaded = load(Some(file), &env, &[("listen", "flag:1")]).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let expected = Config {
        prefix: "env".into(),
        listen: "flag:1".into(),
        seeds: vec!["a:1".into()],
        drain: Drain { rate_per_s: 7, accept_grace_ms: 0 },
        ..Config::default()
    };
    assert_eq!(loaded.config, expected);
    assert_eq!(load(None, &[], &[]).unwrap().config, Config::default());
}

#[test]
fn texts_become_what_the_key_holds() {
    let env = [
        ("SLUICE_ANONYMOUS", "true"),
        ("SLUICE_PREFIX", "true"),
        ("SLUICE_TOKEN_SECRET", "12345"),
        ("SLUICE_SEEDS", "a:1, b:2,"),
        ("SLUICE_WEIGHT", "0.5"),
        ("SLUICE_LIMIT", "3"),
        ("SLUICE_DRAIN__RATE_PER_S", "1_000"),
        ("SLUICE_LOG__FORMAT", "json"),
    ];
    let expected = Config {
        anonymous: true,
        prefix: "true".into(),
        token_secret: Some("12345".into()),
        seeds: vec!["a:1".into(), "b:2".into()],
        weight: 0.5,
        limit: Some(3),
        drain: Drain { rate_per_s: 1000, accept_grace_ms: 0 },
        log: Log { format: Format::Json },
        ..Config::default()
    };
    assert_eq!(load(None, &env, &[]).unwrap().config, expected);
    let set = [("seeds", "[\"x\", \"y\"]"), ("seeds", "http://one")];
    assert_eq!(load(None, &[], &set).unwrap().config.seeds, ["http://one"]);
    assert_eq!(load(None, &[("SLUICE_SEEDS", "")], &[]).unwrap().config.seeds, Vec::<String>::new());
}

#[test]
fn a_mistake_in_the_file_is_shown_with_caret_and_near_match() {
    let text = refused(Some("listen = \"a:1\"\n[drain]\nrate_pr_s = 5\n"), &[], &[]);
    assert!(text.starts_with("in the configuration file /"), "{text}");
    for part in ["line 3, column 1", "3 | rate_pr_s = 5", "^^^^^^^^^", "did you mean `rate_per_s`?"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let text = refused(Some("[drain]\nrate_per_s = \"ten\"\n"), &[], &[]);
    assert!(text.contains("line 2") && text.contains("expected u32"), "{text}");
    let text = load_with_warnings::<Config>(Some("/nowhere/x.toml".as_ref()), std::iter::empty(), &[])
        .unwrap_err()
        .to_string();
    assert!(text.starts_with("cannot read the configuration file /nowhere/x.toml:"), "{text}");
}

#[test]
fn a_section_given_in_part_keeps_the_defaults_of_the_service() {
    let file = "[grpc]\nadvertise = \"logic-0:7070\"\n";
    let expected = Grpc { advertise: "logic-0:7070".into(), ..Grpc::at(7070) };
    assert_eq!(load(Some(file), &[], &[]).unwrap().config.grpc, expected);
    assert_eq!(load(Some(file), &[("SLUICE_PREFIX", "x")], &[]).unwrap().config.grpc, expected);
}

#[test]
fn an_address_is_checked_where_it_is_written() {
    let text = refused(Some("[grpc]\nlisten = \"nowhere\"\n"), &[], &[]);
    assert!(text.contains("line 2") && text.contains("\"nowhere\" is no address"), "{text}");
    let text = refused(None, &[("SLUICE_GRPC__LISTEN", "7070")], &[]);
    assert!(text.contains("SLUICE_GRPC__LISTEN: \"7070\" is no address"), "{text}");
}

#[test]
fn variables_and_flags_are_named() {
    assert_eq!(
        refused(None, &[("SLUICE_DRAIN__RATE_PER_S", "ten")], &[]),
        "environment variable SLUICE_DRAIN__RATE_PER_S: invalid type: string \"ten\", expected u32"
    );
    assert_eq!(
        refused(None, &[], &[("drain.rate", "5")]),
        "--set drain.rate: unknown key; did you mean `drain.rate_per_s`?"
    );
    assert_eq!(refused(None, &[], &[("zzz", "5")]), "--set zzz: unknown key");
    assert_eq!(
        refused(None, &[], &[("listen.port", "5")]),
        "--set listen.port: unknown key; did you mean `listen`?"
    );
    let loaded = load(None, &[("SLUICE_DRAIN__RATE", "5"), ("SLUICE_CONFIG", "x")], &[]).unwrap();
    assert_eq!(
        loaded.warnings,
        ["environment variable SLUICE_DRAIN__RATE is not known here; did you mean SLUICE_DRAIN__RATE_PER_S?"]
    );
    assert_eq!(loaded.config, Config::default());
}

#[test]
fn a_secret_is_not_in_an_error_nor_printed() {
    let mut config = Config { token_secret: Some("hush".into()), ..Config::default() };
    config.listen = "10.0.0.1:1".into();
    let shown = masked_toml(&config);
    assert!(!shown.contains("hush") && shown.contains("10.0.0.1:1") && shown.contains("[drain]"), "{shown}");
}

/// People know tables and values, not the types of the program.
#[test]
fn a_value_in_the_place_of_a_section_is_said_in_words_of_the_file() {
    for text in [refused(Some("drain = 5"), &[], &[]), refused(None, &[], &[("drain", "5")])] {
        assert!(text.contains("expected a table") && !text.contains("struct"), "{text}");
    }
}

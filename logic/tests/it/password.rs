//! A start that cannot succeed, as the log and the exit code tell it: a PostgreSQL that wants a password, a taken port.

use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;
use sluice_launcher::{Cluster, Service};
use sqlx::{Connection as _, PgConnection, query_scalar, raw_sql};

use super::process::{Logic, command, urls};
use super::stores::stores;

/// A role with a password that PostgreSQL asks for; its URL with another one in its place.
async fn with_password(cluster: &Cluster, shown: &str) -> String {
    let postgres = cluster.store(Service::Postgres).url().to_owned();
    let mut sql = PgConnection::connect(&postgres).await.unwrap();
    let rules: String = query_scalar("show hba_file").fetch_one(&mut sql).await.unwrap();
    // The server's own tools go on without one: the launcher asks whether it is ready as `postgres`.
    std::fs::write(rules, "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        .unwrap();
    let role = "drop role if exists sluice; set password_encryption = 'scram-sha-256'; \
                create role sluice login superuser password 'right'; select pg_reload_conf()";
    raw_sql(role).execute(&mut sql).await.unwrap();
    sql.close().await.unwrap();
    postgres.replace("postgres@", &format!("sluice:{shown}@"))
}

/// The lines of a log, which all have to be JSON.
fn lines(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

/// What ends by itself, with what it logged.
async fn refused(urls: &[(&str, String)]) -> (Option<i32>, String) {
    let mut command = command();
    command.envs(urls.iter().map(|(key, url)| (*key, url))).stdout(Stdio::null());
    let output = command.output().await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// The last line says the code that the process ends with, at ERROR, and the cause once in each line.
fn says(log: &str, code: i32, cause: &str) {
    let all = lines(log);
    let last = all.last().unwrap();
    assert_eq!(
        (&last["message"], &last["level"], &last["exit_code"]),
        (&"Stopped".into(), &"ERROR".into(), &code.into()),
        "{log}"
    );
    assert!(last["reason"].as_str().unwrap().contains(cause), "{log}");
    for line in all.iter().filter(|line| line.to_string().contains(cause)) {
        assert_eq!(line.to_string().matches(cause).count(), 1, "said twice: {line}");
        assert_eq!(line["level"], "ERROR", "{line}");
    }
    for internal in ["expected struct", "InvalidToken", "former=None", "sqlx", "Database(", "Misconfigured"] {
        assert!(!log.contains(internal), "{internal}: {log}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_an_error_with_its_cause_once_and_the_exit_code_of_the_process() {
    let cluster = stores().await;
    let with = async |shown: &str| {
        let url = with_password(&cluster, shown).await;
        let mut urls = urls(&cluster);
        urls.iter_mut()
            .filter(|(key, _)| *key == "SLUICE_POSTGRES__URL")
            .for_each(|one| one.1.clone_from(&url));
        urls
    };
    let (code, log) = refused(&with("wrong").await).await;
    assert_eq!(code, Some(2), "{log}");
    says(&log, 2, "password authentication failed for user");
    assert!(
        log.contains("check the user of postgres.url and its password") && !log.contains("wrong@"),
        "{log}"
    );
    assert!(!log.contains("error returned from database"), "words of the driver: {log}");
    // The same with the right one works: it is the password.
    let logic = Logic::start(&with("right").await).await;
    logic.ready().await;
    let ended = logic.signal(Signal::SIGTERM).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let last = lines(&ended.log).pop().unwrap();
    assert_eq!((&last["level"], &last["exit_code"]), (&"INFO".into(), &0.into()));
    cluster.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_with_the_exit_code_of_the_process() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for key in ["SLUICE_GRPC__LISTEN", "SLUICE_ADMIN__LISTEN"] {
        let (code, log) = refused(&[(key, address.clone())]).await;
        assert_eq!(code, Some(1), "{log}");
        says(&log, 1, &format!("cannot listen on {address}"));
    }
}

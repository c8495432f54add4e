//! `sluice certs`: what it makes is of use to each service, and it overwrites nothing unasked.

use super::{run, text};

#[test]
fn certificates_are_made_once_and_renewed_of_the_same_authority() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("certs").display().to_string();
    let made = run(&["certs", "--dir", &dir]);
    let said = text(&made.stdout);
    assert!(made.status.success() && said.contains("[tls]") && said.contains("Keep ca.key"), "{said}");
    let read = |file: &str| std::fs::read(format!("{dir}/{file}")).unwrap();
    let (authority, logic) = (read("ca.pem"), read("logic.pem"));

    let again = run(&["certs", "--dir", &dir]);
    assert_eq!(again.status.code(), Some(1));
    let said = text(&again.stderr);
    assert!(said.contains("not overwritten") && said.contains("--renew"), "{said}");
    assert!(run(&["certs", "--dir", &dir, "--if-missing"]).status.success());
    assert_eq!((read("ca.pem"), read("logic.pem")), (authority.clone(), logic.clone()));

    assert!(run(&["certs", "--dir", &dir, "--renew"]).status.success());
    assert!(read("ca.pem") == authority && read("logic.pem") != logic);
    std::fs::write(format!("{dir}/logic.pem"), read("task.pem")).unwrap();
    let wrong = run(&["certs", "--dir", &dir, "--if-missing"]);
    assert_eq!(wrong.status.code(), Some(1));
    let said = text(&wrong.stderr);
    assert!(
        said.contains("is not for a logic") && said.contains("--renew` makes new certificates"),
        "{said}"
    );

    // Killed between a key and its certificate: said with its fix, which works.
    std::fs::write(format!("{dir}/logic.key"), read("gateway.key")).unwrap();
    assert!(!run(&["certs", "--dir", &dir, "--if-missing"]).status.success());
    assert!(run(&["certs", "--dir", &dir, "--renew"]).status.success());
    assert!(run(&["certs", "--dir", &dir, "--if-missing"]).status.success());
}

#[test]
fn servers_have_certificates_of_the_same_authority_and_no_name_of_a_service() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("certs").display().to_string();
    let missing = |host: &str| run(&["certs", "--dir", &dir, "--if-missing", "--server", host]);
    let read = |file: &str| std::fs::read(format!("{dir}/{file}")).unwrap();
    assert!(missing("nats").status.success());
    let (nats, authority) = (read("nats.pem"), read("ca.pem"));
    assert!(missing("db.example").status.success());
    assert!(missing("nats").status.success());
    assert!(read("nats.pem") == nats && !read("db.example.key").is_empty() && read("ca.pem") == authority);
    assert!(run(&["certs", "--dir", &dir, "--renew", "--server", "nats"]).status.success());
    assert!(read("nats.pem") != nats && read("ca.pem") == authority);
    let wrong = missing("x.sluice");
    let said = text(&wrong.stderr);
    assert!(wrong.status.code() == Some(1) && said.contains("no name of a server"), "{said}");
}

//! An etcd that lets in only whom it knows, over TLS; several of which some are away.

use std::time::Duration;

use etcd_client::{Client, ConnectOptions, GetOptions, Permission, PermissionType};
use sluice_cluster::etcd::{EtcdCluster, EtcdConfig, probe};
use sluice_cluster::{Cluster as _, Etcd, InstanceState, Registration, Service};
use sluice_lifecycle::{Lifecycle, Plan, Stage, StopReason};
use sluice_testing::{
    Authority, LinkEnd, ServerKind, TestServer, TlsFiles, WrongEnds, eventually, free_port,
};

use crate::contract::LONG;

/// A service registers with it, and the probe is content.
async fn lets_in(etcd: &Etcd) {
    assert_eq!(etcd.check(), Vec::<String>::new());
    let plan = Plan::new(Duration::from_secs(2)).stage(Stage::Release, Duration::from_secs(1));
    let (lifecycle, engine) = Lifecycle::new(plan);
    let (address, version) = ("task:7072".into(), "test".into());
    let registration = Registration { service: Service::Task, address, url: None, version };
    let config = EtcdConfig { etcd: etcd.clone(), ..EtcdConfig::default() };
    let scope = lifecycle.scope(Stage::Release);
    let cluster = EtcdCluster::start(&scope, config, registration, &[], [].into()).await.unwrap();
    eventually("it sees itself", LONG, async || cluster.view().borrow().sees_me).await;
    assert_eq!(cluster.health(), Ok(()));
    cluster.close().await.unwrap();
    lifecycle.stop(StopReason::Manual("test".into()));
    assert_eq!(engine.run().await.exit_code(), 0);
}

/// What the probe says is wrong.
async fn refusal(etcd: &Etcd) -> String {
    let said = tokio::time::timeout(LONG, probe(etcd.clone())).await.expect("no hang");
    said.expect_err("let in")
}

/// One that shows this certificate, and wants to see one of the same authority.
async fn tls_server(shown: &TlsFiles) -> TestServer {
    let mut server = TestServer::absent(ServerKind::Etcd).with_args(|port| {
        let url = format!("https://127.0.0.1:{port}");
        let TlsFiles { ca, cert, key } = shown;
        let args = [
            ["--listen-client-urls", &url],
            ["--advertise-client-urls", &url],
            ["--cert-file", cert],
            ["--key-file", key],
            ["--trusted-ca-file", ca],
        ];
        let args = args.into_iter().flatten().map(str::to_owned);
        args.chain(["--client-cert-auth".to_owned()]).collect()
    });
    server.run().await;
    server
}

#[tokio::test]
async fn each_wrong_end_of_the_link_is_a_line_with_its_fix() {
    let ends = WrongEnds::of(ServerKind::Etcd, tls_server).await;
    for (scheme, end, says) in [
        ("https", &ends.elsewhere, "a name that stands in the server's certificate in etcd.endpoints"),
        ("https", &ends.expired, "not valid now"),
        ("https", &ends.plain, "the server does not speak TLS there: use http://"),
        ("http", &ends.tls, "if the server speaks TLS, use https://"),
    ] {
        let LinkEnd { server, files } = end;
        let url = format!("{scheme}://127.0.0.1:{}", server.port());
        let etcd = Etcd {
            ca_file: files.ca.clone(),
            cert_file: files.cert.clone(),
            key_file: files.key.clone(),
            ..Etcd::at([url])
        };
        let why = refusal(&etcd).await;
        // What a server without TLS says of a handshake may be lost with the connection.
        let is_reset = server.port() == ends.plain.server.port() && why.contains("else http://");
        assert!(why.contains("etcd cannot be used") && (why.contains(says) || is_reset), "{says}: {why}");
        assert!(!why.contains('\n'), "{why:?}");
    }
}

#[tokio::test]
async fn tls_with_an_own_authority_and_a_clients_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let files = |of: &str| Authority::in_dir(dir.path(), of);
    let (ours, theirs) = (files("ours").issue("127.0.0.1"), files("theirs").issue("127.0.0.1"));
    let server = tls_server(&ours).await;
    let url = format!("https://127.0.0.1:{}", server.port());
    let shown = |ca: &str, shown: &TlsFiles| Etcd {
        ca_file: ca.to_owned(),
        cert_file: shown.cert.clone(),
        key_file: shown.key.clone(),
        ..Etcd::at([url.clone()])
    };
    lets_in(&shown(&ours.ca, &ours)).await;
    for (wrong, says) in [
        (shown(&theirs.ca, &ours), "etcd.ca_file"),
        (shown(&ours.ca, &theirs), "etcd.cert_file"),
        (Etcd { ca_file: ours.ca.clone(), ..Etcd::at([url.clone()]) }, "etcd.cert_file"),
        (Etcd::at([server.url()]), "use https://"),
    ] {
        let why = refusal(&wrong).await;
        assert!(why.contains(says), "{says}: {why}");
    }
}

/// With a user `ann` who may do all under the prefix, and nothing for anybody else.
async fn ask_for_users(server: &TestServer) {
    let mut root = Client::connect([server.url()], None).await.unwrap();
    root.role_add("sluice").await.unwrap();
    let range = Permission::new(PermissionType::Readwrite, "/sluice/").with_prefix();
    root.role_grant_permission("sluice", range).await.unwrap();
    for (user, role) in [("root", "root"), ("ann", "sluice")] {
        root.user_add(user, "hush", None).await.unwrap();
        root.user_grant_role(user, role).await.unwrap();
    }
    root.auth_enable().await.unwrap();
}

#[tokio::test]
async fn a_user_with_a_password_is_let_in_also_by_a_server_that_came_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = TestServer::start(ServerKind::Etcd).await;
    ask_for_users(&server).await;
    let with = |user: &str, password: &str| Etcd {
        user: user.to_owned(),
        password: password.into(),
        ..Etcd::at([server.url()])
    };
    let (ann, wrong) = (with("ann", "hush"), with("ann", "loud"));
    lets_in(&ann).await;
    let password_file = dir.path().join("password");
    std::fs::write(&password_file, "hush\n").unwrap();
    let password_file = password_file.display().to_string();
    let by_file = Etcd { password: "".into(), password_file, ..ann.clone() };
    lets_in(&by_file).await;
    let why = refusal(&wrong).await;
    assert!(why.contains("etcd.user") && !why.contains("loud"), "{why}");

    // Its tokens are gone with it, and it is away at the start: no reason to end, or to stay outside.
    server.kill();
    let (lifecycle, engine) =
        Lifecycle::new(Plan::new(Duration::from_secs(2)).stage(Stage::Release, Duration::from_secs(1)));
    let (address, version) = ("task:7072".into(), "test".into());
    let registration = Registration { service: Service::Task, address, url: None, version };
    let config = EtcdConfig { etcd: by_file, ..EtcdConfig::default() };
    let scope = lifecycle.scope(Stage::Release);
    let cluster = EtcdCluster::start(&scope, config, registration, &[], [].into()).await.unwrap();
    server.run().await;
    eventually("it sees itself", LONG, async || cluster.view().borrow().sees_me).await;
    server.kill();
    server.run().await;
    cluster.set_state(InstanceState::Draining).await;
    let mut etcd = {
        let options = ConnectOptions::new().with_user("root", "hush");
        Client::connect([server.url()], Some(options)).await.unwrap()
    };
    let key = "/sluice/instances/task/";
    eventually("its new state is written", LONG, async || {
        let all = etcd.get(key, Some(GetOptions::new().with_prefix())).await.unwrap();
        all.kvs().iter().any(|pair| pair.value_str().unwrap().contains("draining"))
    })
    .await;
    lifecycle.stop(StopReason::Manual("test".into()));
    engine.run().await;
}

/// etcd forgets the tokens of a user whose password changes: from then on the old one opens nothing.
#[tokio::test]
async fn a_password_that_is_replaced_in_its_file_needs_no_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::start(ServerKind::Etcd).await;
    ask_for_users(&server).await;
    let file = dir.path().join("password");
    std::fs::write(&file, "hush").unwrap();
    let etcd = Etcd {
        user: "ann".into(),
        password_file: file.display().to_string(),
        lease_ttl_s: 2,
        ..Etcd::at([server.url()])
    };
    let plan = Plan::new(Duration::from_secs(2)).stage(Stage::Release, Duration::from_secs(1));
    let (lifecycle, engine) = Lifecycle::new(plan);
    let (address, version) = ("task:7072".into(), "test".into());
    let registration = Registration { service: Service::Task, address, url: None, version };
    let config = EtcdConfig { etcd, ..EtcdConfig::default() };
    let scope = lifecycle.scope(Stage::Release);
    let cluster = EtcdCluster::start(&scope, config, registration, &[], [].into()).await.unwrap();
    eventually("it sees itself", LONG, async || cluster.view().borrow().sees_me).await;

    let root = ConnectOptions::new().with_user("root", "hush");
    let mut root = Client::connect([server.url()], Some(root)).await.unwrap();
    root.user_change_password("ann", "whisper").await.unwrap();
    // Renewing a lease asks for no right, a change does.
    cluster.set_state(InstanceState::Draining).await;
    eventually("the old password is refused", LONG, async || cluster.health().is_err()).await;
    std::fs::write(&file, "whisper").unwrap();
    eventually("the new one is taken", LONG, async || {
        let all = root.get("/sluice/instances/task/", Some(GetOptions::new().with_prefix())).await.unwrap();
        cluster.health().is_ok()
            && all.kvs().iter().any(|pair| pair.value_str().unwrap().contains("draining"))
    })
    .await;
    lifecycle.stop(StopReason::Manual("test".into()));
    engine.run().await;
}

#[tokio::test]
async fn one_of_several_endpoints_is_enough() {
    let server = TestServer::start(ServerKind::Etcd).await;
    let away = || format!("http://127.0.0.1:{}", free_port());
    lets_in(&Etcd::at([away(), server.url(), away()])).await;
}

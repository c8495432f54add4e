//! What operators do to a running cluster by its command line, in the middle of load: nothing is lost.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use sluice_launcher::{Node, Options, Service, probe};

use super::Real;
use crate::deploys::under_load;
use crate::kit::{Ground, SOON, client_of, until};
use crate::record::Sent;

pub(super) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Two of each, which take commands.
async fn cluster(folder: &Path) -> Real {
    commanded(folder, Options { gateways: 2, logics: 2, tasks: 2, ..Options::default() }).await
}

/// Takes commands from who has the token in a file of this folder.
pub(super) async fn commanded(folder: &Path, options: Options) -> Real {
    let file = folder.join("admin.token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let setting = format!("all.admin.token_file={}", file.display());
    Real::with(options.set(&setting).unwrap()).await
}

/// `sluice …`, asked of an instance.
fn sluice(arguments: &[&str], at: &Node, folder: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(arguments).args(["--admin", at.admin()]);
    if arguments.first().is_some_and(|verb| ["stop", "drain", "undrain"].contains(verb))
        || arguments.contains(&"release")
    {
        command.arg("--token-file").arg(folder.join("admin.token"));
    }
    let Output { status, stdout, stderr } = command.env_remove("SLUICE_ADMIN__TOKEN_FILE").output().unwrap();
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

pub(super) async fn page(node: &Node, path: &str) -> Value {
    let answer = probe::get(&format!("{}{path}", node.admin()), Duration::from_secs(2)).await.unwrap();
    serde_json::from_str(&answer.body).unwrap()
}

/// Its id, when everybody sees it.
pub(super) async fn id(node: &Node) -> String {
    page(node, "/status").await["instance"].as_str().unwrap().to_owned()
}

async fn is_ready(node: &Node) -> bool {
    probe::get(&format!("{}/readyz", node.admin()), Duration::from_secs(2))
        .await
        .is_ok_and(|it| it.status == 200)
}

/// One gateway is drained under load, stays, and comes back; its clients lose nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_drained_under_load_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = cluster(folder.path()).await;
    let (observers, sent) = under_load(&cluster, 4_000, async |cluster| {
        let (drained, other) = (cluster.gateway(0), cluster.gateway(1));
        let id = id(&drained).await;
        // Asked of the other one.
        let (code, said) = sluice(&["drain", &id], &other, folder.path());
        assert_eq!((code, said.trim()), (Some(0), format!("{id} is told to drain").as_str()));
        until("its clients have moved", SOON, async || {
            let status = page(&drained, "/status").await;
            status["connections"] == 0 && status["safe_to_kill"] == true
        })
        .await;
        assert!(!is_ready(&drained).await && page(&drained, "/status").await["stage"] == "ready");
        // Waiting for what is so already.
        let (code, said) = sluice(&["drain", "--wait-s", "5"], &drained, folder.path());
        assert!(code == Some(0) && said.contains("it may be killed"), "{said}");
        let (code, said) = sluice(&["undrain"], &drained, folder.path());
        assert_eq!(code, Some(0), "{said}");
        until("it is ready again", SOON, async || is_ready(&drained).await).await;
        // And clients come in again.
        let options = client_of(cluster, "late", 0);
        let (client, _events) = sluice_client::Client::connect(options).await.unwrap();
        until("a client is there", SOON, async || page(&drained, "/status").await["connections"] != 0).await;
        drop(client);
    })
    .await;
    sent.iter().for_each(Sent::all_ok);
    let told = observers[0].look(|seen| seen.farewells.clone());
    assert_eq!(told.first().map(String::as_str), Some("drain restart"), "{told:?}");
    cluster.stop().await;
}

/// Every duty is taken from its owner in the middle of load, again and again; then one task is stopped from afar.
#[tokio::test(flavor = "multi_thread")]
async fn an_emergency_release_and_a_stop_from_afar_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = cluster(folder.path()).await;
    let (_, sent) = under_load(&cluster, 3_000, async |cluster| {
        let (asked, stopped) = (cluster.gateway(0), cluster.node(Service::Task, 0).unwrap());
        for _ in 0..3 {
            until("every duty has an owner", SOON, async || owned(&asked).await).await;
            let release = ["duties", "release", "--all", "--emergency"];
            let (code, said) = sluice(&release, &asked, folder.path());
            assert!(code == Some(0) && said.contains("EMERGENCY RELEASE"), "{said}");
            assert!(said.contains("sweep taken from task-"), "{said}");
        }
        let id = id(&stopped).await;
        let (code, said) = sluice(&["stop", &id], &asked, folder.path());
        assert_eq!(code, Some(0), "{said}");
        let exit = stopped.wait_exit(Duration::from_secs(9)).await.unwrap();
        assert_eq!(exit.code(), Some(0), "{}", stopped.log_tail());
        until("the other has taken over", SOON, async || owned(&asked).await).await;
        cluster.start_at(Service::Task, 0).await.unwrap();
    })
    .await;
    sent.iter().for_each(Sent::all_ok);
    until("all are registered", SOON, async || {
        let (code, said) = sluice(&["instances"], &cluster.gateway(0), folder.path());
        code == Some(0) && said.contains("6 registered")
    })
    .await;
    let (code, said) = sluice(&["duties"], &cluster.gateway(0), folder.path());
    assert!(code == Some(0) && said.contains("sweep") && !said.contains("nobody"), "{said}");
    cluster.stop().await;
}

/// Whether every duty has an owner, who lives.
async fn owned(node: &Node) -> bool {
    let page = page(node, "/admin/duties").await;
    let duties = page.as_array().unwrap();
    duties.len() >= 2 && duties.iter().all(|duty| duty["owner_lives"] == true)
}

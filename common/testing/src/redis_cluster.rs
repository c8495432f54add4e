//! A Redis Cluster of private servers. Who is who is written down before any of them starts, as the nodes themselves
//! write it: nobody has to be introduced to anybody.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{ServerKind, TestServer, eventually};

/// Longest until all nodes agree.
const SETTLES_WITHIN: Duration = Duration::from_secs(30);
/// A primary is taken for dead after this long without an answer, milliseconds.
const DOWN_AFTER_MS: &str = "1000";
const SLOTS: usize = 16_384;

/// Nodes: the primaries first, each with an equal share of the slots, then a replica of each or of none.
#[derive(Debug)]
pub struct RedisCluster {
    /// Running or not.
    pub nodes: Vec<TestServer>,
    primaries: usize,
}

impl RedisCluster {
    /// Nodes that agree with each other.
    pub async fn start(primaries: usize, with_replicas: bool) -> Self {
        let mut cluster = Self::absent(primaries, with_replicas, |_| Vec::new());
        cluster.run().await;
        cluster.settled().await;
        cluster
    }

    /// Nothing running; `args` of a node with this port beside the usual ones.
    #[must_use]
    pub fn absent(primaries: usize, with_replicas: bool, args: impl Fn(u16) -> Vec<String>) -> Self {
        let count = if with_replicas { 2 * primaries } else { primaries };
        let mut nodes: Vec<TestServer> = (0..count).map(|_| TestServer::absent(ServerKind::Redis)).collect();
        let lines: Vec<String> = (0..count).map(|index| line(&nodes[index], index, primaries)).collect();
        for (index, node) in nodes.iter_mut().enumerate() {
            let mut known = lines.clone();
            known[index] = known[index].replacen(" master", " myself,master", 1);
            known[index] = known[index].replacen(" slave", " myself,slave", 1);
            let epochs = format!("vars currentEpoch {primaries} lastVoteEpoch 0\n");
            std::fs::write(node.dir.path().join("nodes.conf"), known.concat() + &epochs).unwrap();
            let bus = node.peer_port.to_string();
            let usual = [
                ["--cluster-enabled", "yes"],
                ["--cluster-port", &bus],
                ["--cluster-node-timeout", DOWN_AFTER_MS],
                // Else all parts are away with one.
                ["--cluster-require-full-coverage", "no"],
                // A primary waits for more replicas otherwise.
                ["--repl-diskless-sync-delay", "0"],
            ];
            node.args = usual.into_iter().flatten().map(str::to_owned).chain(args(node.port())).collect();
        }
        Self { nodes, primaries }
    }

    /// Starts all of them, each with what it knew of the others.
    pub async fn run(&mut self) {
        for node in &mut self.nodes {
            node.run().await;
        }
    }

    /// Waits until every node has heard of all others that they work, and replicas follow. Not over TLS.
    pub async fn settled(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            let settled = async || {
                let serves = says(node.port(), "CLUSTER INFO", "cluster_state:ok").await;
                let follows = index < self.primaries
                    || says(node.port(), "INFO replication", "master_link_status:up").await;
                serves && follows
            };
            eventually("the node agrees with the others", SETTLES_WITHIN, settled).await;
        }
    }

    /// As it stands in a URL: `127.0.0.1:1,127.0.0.1:2`.
    #[must_use]
    pub fn places(&self) -> String {
        let places: Vec<String> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        places.join(",")
    }

    /// How clients name it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+cluster://{}", self.places())
    }
}

/// What nodes write down of one of them.
fn line(node: &TestServer, index: usize, primaries: usize) -> String {
    let id = |index: usize| format!("{:040x}", index + 1);
    let place = format!("{} 127.0.0.1:{}@{}", id(index), node.port(), node.peer_port);
    if index >= primaries {
        let of = index - primaries;
        return format!("{place} slave {} 0 0 {} connected\n", id(of), of + 1);
    }
    let share = |index: usize| index * SLOTS / primaries;
    format!("{place} master - 0 0 {} connected {}-{}\n", index + 1, share(index), share(index + 1) - 1)
}

/// Whether a Redis answers a command with a text that has this in it.
async fn says(port: u16, command: &str, what: &str) -> bool {
    let ask = async {
        let mut tcp = TcpStream::connect(("127.0.0.1", port)).await?;
        tcp.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).await?;
        let mut said = String::new();
        tcp.read_to_string(&mut said).await?;
        std::io::Result::Ok(said)
    };
    timeout(Duration::from_secs(1), ask).await.is_ok_and(|said| said.is_ok_and(|said| said.contains(what)))
}

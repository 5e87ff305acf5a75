//! Power over the servers' hosts for managers in other processes: what a daemon on each host would be.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use resonant_ha::backend::postgres::PostgresAgent;
use resonant_ha::{Error, ErrorKind, Pledge, PledgedTo, RegionTarget, Result};
use resonant_testkit::PostgresCluster;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use super::super::agent::KitAgent;

#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    region: usize,
    order: Pledge,
    /// Of a rejoin: the primary's region, and where its standbys reach it.
    primary: Option<(String, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Done(String),
    Fenced(Pledge),
    Failed(String),
}

/// Serves the agents of all servers, for as long as the runtime lives.
pub(super) async fn serve(cluster: &PostgresCluster) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let agents = cluster.nodes().iter().map(|node| KitAgent::new(cluster, node.clone()));
    // Calls about one host exclude each other, whichever manager they come from.
    let agents: Arc<[Mutex<KitAgent>]> = agents.map(Mutex::new).collect();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let agents = Arc::clone(&agents);
            // What was asked is done, also when the manager that asked is gone.
            tokio::spawn(async move { answer(stream, &agents).await });
        }
    });
    address
}

async fn answer(mut stream: TcpStream, agents: &[Mutex<KitAgent>]) {
    let mut line = String::new();
    if BufReader::new(&mut stream).read_line(&mut line).await.is_err() {
        return;
    }
    let Ok(asked) = serde_json::from_str::<Asked>(&line) else { return };
    let agent = agents[asked.region].lock().await;
    let done = match asked.primary {
        None => agent.stop(&asked.order).await,
        Some((region, url)) => {
            let primary =
                RegionTarget { region: region.into(), url: url.clone(), replication_url: url };
            agent.rejoin(&asked.order, &primary).await.map(|()| String::new())
        }
    };
    drop(agent);
    let answer = match done {
        Ok(by) => Answer::Done(by),
        Err(error) => {
            let source = std::error::Error::source(&error);
            match source.and_then(|source| source.downcast_ref::<PledgedTo>()) {
                Some(newer) => Answer::Fenced(newer.0.clone()),
                None => Answer::Failed(error.to_string()),
            }
        }
    };
    let text = serde_json::to_string(&answer).expect("plain data") + "\n";
    let _ = stream.write_all(text.as_bytes()).await;
}

/// The manager's side.
#[derive(Debug)]
pub(super) struct RemoteAgent {
    pub(super) address: SocketAddr,
    pub(super) region: usize,
}

impl RemoteAgent {
    async fn ask(&self, order: &Pledge, primary: Option<(String, String)>) -> Result<String> {
        let failed = |what: &str| Error::new(ErrorKind::Failed, "agent", what.to_owned());
        let lost = |_| failed("the agent cannot be reached");
        let asked = Asked { region: self.region, order: order.clone(), primary };
        let text = serde_json::to_string(&asked).expect("plain data") + "\n";
        let mut stream = TcpStream::connect(self.address).await.map_err(lost)?;
        stream.write_all(text.as_bytes()).await.map_err(lost)?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.map_err(lost)?;
        match serde_json::from_str(&line).map_err(|_| failed("the agent did not answer"))? {
            Answer::Done(by) => Ok(by),
            Answer::Fenced(newer) => Err(PledgedTo(newer).refuse("agent")),
            Answer::Failed(why) => Err(failed(&why)),
        }
    }
}

#[async_trait]
impl PostgresAgent for RemoteAgent {
    async fn stop(&self, order: &Pledge) -> Result<String> {
        self.ask(order, None).await
    }

    async fn rejoin(&self, order: &Pledge, primary: &RegionTarget) -> Result<()> {
        let primary = (primary.region.as_str().to_owned(), primary.replication_url.clone());
        self.ask(order, Some(primary)).await.map(drop)
    }
}

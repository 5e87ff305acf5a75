//! ConnectionPool on its own: any connection that can be opened and checked.
//!
//! `cargo run --example pool`

use std::error::Error;
use std::time::Duration;

use resonant_db::pool::Manager;
use resonant_db::{ConnectionPool, ErrorKind, PoolConfig, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Opens connections to a line-echo server, and tells whether one still answers.
struct Echo {
    address: std::net::SocketAddr,
}

impl Manager for Echo {
    type Connection = BufReader<TcpStream>;

    async fn connect(&self) -> Result<Self::Connection> {
        let unavailable = |error: std::io::Error| {
            resonant_db::Error::new(
                ErrorKind::Unavailable,
                "connect",
                "the echo server does not answer",
            )
            .with_source(error)
        };
        TcpStream::connect(self.address).await.map(BufReader::new).map_err(unavailable)
    }

    async fn check(&self, connection: &mut Self::Connection) -> Result<()> {
        let asked = say(connection, "ping").await;
        asked.map(drop).map_err(|error| {
            resonant_db::Error::new(ErrorKind::Unavailable, "check", "no echo").with_source(error)
        })
    }
}

async fn say(connection: &mut BufReader<TcpStream>, word: &str) -> std::io::Result<String> {
    connection.write_all(format!("{word}\n").as_bytes()).await?;
    let mut line = String::new();
    connection.read_line(&mut line).await?;
    Ok(line.trim_end().to_owned())
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn Error>> {
    let address = serve().await?;
    // The guide's settings; every one has a default.
    let config = PoolConfig::default()
        .min_size(2u32)
        .max_size(4u32)
        .max_idle_time(Duration::from_secs(300))
        .max_lifetime(Duration::from_secs(3600))
        .health_check_interval(Duration::from_secs(30));
    let pool = ConnectionPool::new("echo", Echo { address }, config)?;
    pool.warm_up().await?;

    // Thirty-two tasks share four connections, first come, first served.
    let tasks: Vec<_> = (0..32)
        .map(|n| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut connection = pool.get().await?;
                let answer = say(&mut connection, &format!("hello {n}")).await?;
                assert_eq!(answer, format!("hello {n}"));
                Ok::<_, Box<dyn Error + Send + Sync>>(())
            })
        })
        .collect();
    for task in tasks {
        task.await?.map_err(|error| error.to_string())?;
    }
    let status = pool.status();
    println!("opened {} connections for 32 tasks, {} are idle now", status.opened, status.idle);
    assert!(status.opened <= 4);

    pool.close(Duration::from_secs(5)).await?;
    Ok(())
}

/// A server that says back what it hears.
async fn serve() -> std::io::Result<std::net::SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    Ok(address)
}

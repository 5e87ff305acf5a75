//! `DATABASE_URL=… REPLICA_URLS=…,… axum-sqlx [ADDRESS]`: without replicas it runs the plain service.

use std::env;
use std::error::Error;

use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let url = env::var("DATABASE_URL").map_err(|_| "DATABASE_URL is not set")?;
    let replicas = env::var("REPLICA_URLS").unwrap_or_default();
    let replicas: Vec<&str> = replicas.split(',').filter(|url| !url.is_empty()).collect();
    let app = match replicas.as_slice() {
        [] => axum_sqlx::plain::app(&url),
        replicas => axum_sqlx::routed::app(&url, replicas),
    };
    let app = app.map_err(|failure| format!("{failure:?}"))?;
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

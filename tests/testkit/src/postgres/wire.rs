//! As much of PostgreSQL's protocol as a test kit needs: log in without a password, ask in simple queries, read text.
//! It is spoken over the Unix socket, which passes through any fault of the network, so that a test can look into a node
//! that is cut off.

use std::collections::HashMap;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::PgRow;
use crate::error::{Error, ErrorKind, Result};

const PROTOCOL_3_0: u32 = 196_608;

/// No answer of the kit's own questions is near this long; a longer one is not PostgreSQL speaking.
const LONGEST_MESSAGE: usize = 64 << 20;

pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Wire for T {}

/// Sends the startup message and reads until the server is ready.
pub(super) async fn log_in(
    stream: &mut dyn Wire,
    name: &str,
    user: &str,
    database: &str,
) -> Result<()> {
    let mut body = PROTOCOL_3_0.to_be_bytes().to_vec();
    for word in ["user", user, "database", database, "application_name", "resonant-testkit"] {
        body.extend_from_slice(word.as_bytes());
        body.push(0);
    }
    body.push(0);
    let mut message = length(body.len() + 4)?.to_vec();
    message.extend_from_slice(&body);
    send(stream, name, &message).await?;
    loop {
        match receive(stream, name).await? {
            (b'R', body) if body.starts_with(&[0, 0, 0, 0]) => {}
            (b'R', _) => {
                let message = format!(
                    "{name} asks {user} for a password, which the kit's own sessions do not have"
                );
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            (b'E', body) => return Err(refusal(name, &body)),
            (b'Z', _) => return Ok(()),
            _ => {}
        }
    }
}

/// Runs one simple query, which may hold several statements, and returns the rows of all of them.
pub(super) async fn query(stream: &mut dyn Wire, name: &str, sql: &str) -> Result<Vec<PgRow>> {
    let mut message = vec![b'Q'];
    message.extend_from_slice(&length(sql.len() + 5)?);
    message.extend_from_slice(sql.as_bytes());
    message.push(0);
    if let Err(error) = send(stream, name, &message).await {
        return Err(last_words(stream, name).await.unwrap_or(error));
    }
    let (mut rows, mut refused) = (Vec::new(), None);
    loop {
        match receive(stream, name).await? {
            (b'D', body) => rows.push(PgRow::new(row(&body).ok_or_else(|| garbled(name))?)),
            (b'E', body) => {
                let error = refusal(name, &body);
                // A FATAL error is the last word; of several others the first says most.
                if fields(&body).get(&'V').is_some_and(|severity| severity != "ERROR") {
                    return Err(error);
                }
                refused.get_or_insert(error);
            }
            (b'Z', _) => return refused.map_or(Ok(rows), Err),
            _ => {}
        }
    }
}

/// What a server that has hung up said before: why.
async fn last_words(stream: &mut dyn Wire, name: &str) -> Option<Error> {
    loop {
        if let (b'E', body) = receive(stream, name).await.ok()? {
            return Some(refusal(name, &body));
        }
    }
}

async fn send(stream: &mut dyn Wire, name: &str, message: &[u8]) -> Result<()> {
    stream.write_all(message).await.map_err(|e| Error::lost(format!("asking {name}"), e))
}

async fn receive(stream: &mut dyn Wire, name: &str) -> Result<(u8, Vec<u8>)> {
    let lost = |e| Error::lost(format!("waiting for {name} to answer"), e);
    let mut head = [0; 5];
    stream.read_exact(&mut head).await.map_err(lost)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let length = length
        .checked_sub(4)
        .filter(|length| *length <= LONGEST_MESSAGE)
        .ok_or_else(|| garbled(name))?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(lost)?;
    Ok((head[0], body))
}

fn length(bytes: usize) -> Result<[u8; 4]> {
    u32::try_from(bytes)
        .map(u32::to_be_bytes)
        .map_err(|_| Error::new(ErrorKind::Config, "a statement of more than 4 GiB".to_owned()))
}

fn row(body: &[u8]) -> Option<Vec<Option<String>>> {
    let (count, mut rest) = body.split_at_checked(2)?;
    let count = u16::from_be_bytes(count.try_into().ok()?);
    let mut values = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let (length, after) = rest.split_at_checked(4)?;
        let length = i32::from_be_bytes(length.try_into().ok()?);
        let (value, after) = match usize::try_from(length) {
            Ok(length) => {
                let (value, after) = after.split_at_checked(length)?;
                (Some(String::from_utf8_lossy(value).into_owned()), after)
            }
            Err(_) => (None, after),
        };
        values.push(value);
        rest = after;
    }
    Some(values)
}

fn fields(body: &[u8]) -> HashMap<char, String> {
    body.split(|byte| *byte == 0)
        .filter_map(|field| {
            let (kind, text) = field.split_first()?;
            Some((char::from(*kind), String::from_utf8_lossy(text).into_owned()))
        })
        .collect()
}

fn refusal(name: &str, body: &[u8]) -> Error {
    let mut fields = fields(body);
    let code = fields.remove(&'C').unwrap_or_default();
    let message = fields.remove(&'M').unwrap_or_default();
    // Class 57P: the server is going down, coming up, or threw this session out.
    let kind = if code.starts_with("57P") { ErrorKind::Lost } else { ErrorKind::Rejected };
    Error::new(kind, format!("{name}: {message}")).with_code(code)
}

fn garbled(name: &str) -> Error {
    Error::new(
        ErrorKind::Lost,
        format!("{name} answered something that is not PostgreSQL's protocol"),
    )
}

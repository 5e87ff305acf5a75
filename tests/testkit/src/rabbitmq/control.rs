//! A door into the running node: a small server on a Unix socket inside the Erlang machine, which evaluates what it is sent.
//!
//! The tools that come with RabbitMQ start a machine of their own, which takes one and a half seconds and all of a processor
//! per question; this takes a millisecond. It also needs no network, so that a node that is cut off can be asked.

use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::error::{Error, ErrorKind, Result};
use crate::wait::{ANSWER, within};

/// What the node runs at its start.
const PROGRAM: &str = include_str!("control.erl");

/// The program for a node that listens at this socket.
pub(super) fn program(socket: &Path) -> String {
    PROGRAM.replace("@SOCKET@", &socket.display().to_string())
}

/// Evaluates Erlang expressions, separated by commas and ended by a dot, in the node; the answer is the last value, a binary as
/// it is and everything else as Erlang writes it.
pub(super) async fn eval(socket: &Path, name: &str, expressions: &str) -> Result<String> {
    let lost = |e| Error::lost(format!("asking {name}"), e);
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await.map_err(lost)?;
        let length = u32::try_from(expressions.len())
            .map_err(|_| Error::new(ErrorKind::Config, "an expression of more than 4 GiB"))?;
        stream.write_all(&length.to_be_bytes()).await.map_err(lost)?;
        stream.write_all(expressions.as_bytes()).await.map_err(lost)?;
        let mut answer = vec![0; stream.read_u32().await.map_err(lost)? as usize];
        stream.read_exact(&mut answer).await.map_err(lost)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        match answer.split_at_checked(1) {
            Some(("+", value)) => Ok(value.to_owned()),
            Some((_, reason)) => {
                Err(Error::new(ErrorKind::Rejected, format!("{name}: {expressions} gave {reason}")))
            }
            None => Err(Error::new(ErrorKind::Lost, format!("{name} said nothing"))),
        }
    };
    within(ANSWER, name, exchange).await
}

/// Text as an Erlang binary.
pub(super) fn binary(text: &str) -> String {
    let bytes: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
    format!("<<{}>>", bytes.join(","))
}

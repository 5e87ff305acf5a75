//! Redis's protocol, versions 2 and 3, as far as a test looks at it.

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use crate::error::{Error, ErrorKind, Result};

/// What a Redis server answers. Bytes are shown as text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// A list, a set, or a map as keys and values in turn.
    Array(Vec<Reply>),
    /// An error inside a list; an answer that is an error as a whole is an [`Error`](crate::Error).
    Failed(String),
    /// A number.
    Integer(i64),
    /// Nothing.
    Null,
    /// A message that answers no command, such as an invalidation.
    Push(Vec<Reply>),
    /// Text, and whatever else is not a number.
    Text(String),
}

impl Reply {
    /// The text, or the number as text.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Integer(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// The number.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The parts of a list, or nothing.
    pub fn items(&self) -> &[Reply] {
        match self {
            Self::Array(items) | Self::Push(items) => items,
            _ => &[],
        }
    }
}

/// A command as it goes over the wire.
pub(super) fn encode<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> Vec<u8> {
    let mut count = 0;
    let mut body = Vec::new();
    for word in words {
        let word = word.as_ref();
        body.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        count += 1;
    }
    let mut message = format!("*{count}\r\n").into_bytes();
    message.append(&mut body);
    message
}

/// Reads one reply. Lists nest a few levels at most, so recursion is fine.
pub(super) async fn read(
    stream: &mut (impl AsyncBufRead + Unpin + Send),
    name: &str,
) -> Result<Reply> {
    let lost = |e| Error::lost(format!("waiting for {name} to answer"), e);
    let garbled = || {
        Error::new(
            ErrorKind::Lost,
            format!("{name} answered something that is not Redis's protocol"),
        )
    };
    let mut line = String::new();
    stream.read_line(&mut line).await.map_err(lost)?;
    if !line.ends_with("\r\n") {
        return Err(lost(std::io::ErrorKind::UnexpectedEof.into()));
    }
    let (kind, rest) = line.trim_end().split_at_checked(1).ok_or_else(garbled)?;
    let count = || rest.parse::<i64>().map_err(|_| garbled());
    Ok(match kind {
        "+" | "," | "(" => Reply::Text(rest.to_owned()),
        "#" => Reply::Integer(i64::from(rest == "t")),
        ":" => Reply::Integer(count()?),
        "_" => Reply::Null,
        "-" => Reply::Failed(rest.to_owned()),
        "$" | "=" | "!" => match usize::try_from(count()?) {
            Err(_) => Reply::Null,
            Ok(length) => {
                let mut bytes = vec![0; length + 2];
                stream.read_exact(&mut bytes).await.map_err(lost)?;
                let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                if kind == "!" { Reply::Failed(text) } else { Reply::Text(text) }
            }
        },
        "*" | "~" | "%" | ">" => match usize::try_from(count()?) {
            Err(_) => Reply::Null,
            Ok(count) => {
                let count = if kind == "%" { count * 2 } else { count };
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(Box::pin(read(stream, name)).await?);
                }
                if kind == ">" { Reply::Push(items) } else { Reply::Array(items) }
            }
        },
        _ => return Err(garbled()),
    })
}

/// An error reply as an error, its first word as the code.
pub(super) fn refusal(name: &str, text: &str) -> Error {
    let code = text.split(' ').next().unwrap_or_default();
    Error::new(ErrorKind::Rejected, format!("{name}: {text}")).with_code(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replies_of_both_versions_are_read() {
        let bytes = b"*3\r\n$3\r\nfoo\r\n:-7\r\n$-1\r\n%1\r\n+key\r\n#t\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n-MOVED 1 a:2\r\n";
        let mut stream = &bytes[..];
        let text = |text: &str| Reply::Text(text.to_owned());
        let mut next = async || read(&mut stream, "redis").await.unwrap();
        assert_eq!(next().await, Reply::Array(vec![text("foo"), Reply::Integer(-7), Reply::Null]));
        assert_eq!(next().await, Reply::Array(vec![text("key"), Reply::Integer(1)]));
        assert_eq!(
            next().await,
            Reply::Push(vec![text("invalidate"), Reply::Array(vec![text("k")])])
        );
        assert_eq!(next().await, Reply::Failed("MOVED 1 a:2".to_owned()));
        assert_eq!(refusal("redis", "MOVED 1 a:2").code(), Some("MOVED"));
        assert_eq!(read(&mut stream, "redis").await.unwrap_err().kind(), ErrorKind::Lost);
    }
}

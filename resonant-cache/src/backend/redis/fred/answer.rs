//! What the driver answers, in the words of the seam.

use ::fred::error::{Error, ErrorKind};
use ::fred::interfaces::Resp3Frame as BytesFrame;
use ::fred::types::Value;
use bytes::Bytes;

use crate::backend::redis::driver::{Answer, Fault, Reply};

pub(super) fn of_frame(frame: BytesFrame) -> Answer {
    match frame {
        BytesFrame::SimpleError { data, .. } => Err(Fault::Refused(data.to_string())),
        BytesFrame::BlobError { data, .. } => {
            Err(Fault::Refused(String::from_utf8_lossy(&data).into_owned()))
        }
        BytesFrame::Null => Ok(Reply::Nil),
        BytesFrame::Number { data, .. } => Ok(Reply::Int(data)),
        BytesFrame::SimpleString { data, .. } | BytesFrame::BlobString { data, .. } => {
            Ok(copy(&data))
        }
        BytesFrame::Array { data, .. } => Ok(Reply::Array(
            data.into_iter().map(|part| of_frame(part).unwrap_or(Reply::Nil)).collect(),
        )),
        _ => Err(Fault::Broken("the server's answer is of no known kind".into())),
    }
}

pub(super) fn of_value(value: Result<Value, Error>) -> Answer {
    match value {
        Err(error) => Err(Fault::Refused(error.details().to_owned())),
        Ok(Value::Null) => Ok(Reply::Nil),
        Ok(Value::Integer(number)) => Ok(Reply::Int(number)),
        Ok(Value::String(text)) => Ok(copy(text.as_bytes())),
        Ok(Value::Bytes(bytes)) => Ok(copy(&bytes)),
        Ok(Value::Array(parts)) => Ok(Reply::Array(
            parts.into_iter().map(|part| of_value(Ok(part)).unwrap_or(Reply::Nil)).collect(),
        )),
        Ok(_) => Err(Fault::Broken("the server's answer is of no known kind".into())),
    }
}

/// As long as it is, and no more: what the driver hands out is a part of what it read.
fn copy(bytes: &[u8]) -> Reply {
    Reply::Bytes(Bytes::copy_from_slice(bytes))
}

/// Why a client did not connect, or ended. A refusal by the server begins with its code.
pub(super) fn fault(error: &Error) -> Fault {
    let code = error.details().split(' ').next().unwrap_or_default();
    let of_the_server = matches!(
        error.kind(),
        ErrorKind::Auth | ErrorKind::Cluster | ErrorKind::Config | ErrorKind::Unknown
    );
    if of_the_server && code.len() > 2 && code.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Fault::Refused(error.details().to_owned());
    }
    Fault::Broken(error.details().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_hold_nothing_of_what_was_read() {
        let read = Bytes::from(vec![b'x'; 4096]);
        let frame = BytesFrame::BlobString { data: read.slice(..10), attributes: None };
        let value = Value::Bytes(read.slice(..10));
        for answer in [of_frame(frame), of_value(Ok(value))] {
            let Ok(Reply::Bytes(bytes)) = answer else { panic!("{answer:?}") };
            assert_eq!(bytes.as_ref(), [b'x'; 10]);
            assert!(!read.as_ptr_range().contains(&bytes.as_ptr()));
        }
    }

    #[test]
    fn what_the_server_refused_is_told_apart_from_what_the_driver_could_not_do() {
        let cases = [
            (ErrorKind::Auth, "WRONGPASS invalid username-password pair", "WRONGPASS"),
            (ErrorKind::Unknown, "NOPERM User x has no permissions", "NOPERM"),
            (ErrorKind::Unknown, "LOADING Redis is loading the dataset in memory", "LOADING"),
            (ErrorKind::Unknown, "ERR max number of clients reached", "ERR"),
            (ErrorKind::IO, "IOERR is no code", ""),
            (ErrorKind::Timeout, "Request timed out.", ""),
            (ErrorKind::Unknown, "Failed to send command to router.", ""),
        ];
        for (kind, text, code) in cases {
            assert_eq!(fault(&Error::new(kind, text)).code(), code, "{text}");
        }
    }

    #[test]
    fn single_and_pipelined_answers_are_read_alike() {
        let text = |text: &'static str| BytesFrame::BlobString {
            data: Bytes::from_static(text.as_bytes()),
            attributes: None,
        };
        let number = |data| BytesFrame::Number { data, attributes: None };
        let frames = BytesFrame::Array {
            data: vec![text("\u{fc}"), number(-7), BytesFrame::Null],
            attributes: None,
        };
        let values = vec![Value::String("\u{fc}".into()), Value::Integer(-7), Value::Null];
        let expected = Reply::Array(vec![
            Reply::Bytes(Bytes::from_static("\u{fc}".as_bytes())),
            Reply::Int(-7),
            Reply::Nil,
        ]);
        assert_eq!(of_frame(frames).ok(), Some(expected.clone()));
        assert_eq!(of_value(Ok(Value::Array(values))).ok(), Some(expected));
        let refused = BytesFrame::SimpleError { data: "MOVED 1 h:2".into(), attributes: None };
        let also = of_value(Err(Error::new(ErrorKind::Cluster, "MOVED 1 h:2")));
        for answer in [of_frame(refused), also] {
            assert_eq!(answer.err().map(|fault| fault.code().to_owned()).as_deref(), Some("MOVED"));
        }
    }
}

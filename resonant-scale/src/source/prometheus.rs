//! A query asked of a Prometheus server.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use resonant_common::error::BoxError;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::MetricSource;
use crate::error::{Error, ErrorKind, Result, config};
use crate::hpa::Reading;

/// The longest answer read.
const LONGEST: usize = 1 << 20;

/// The sum of what an instant query answers.
///
/// An empty answer and `NaN` are errors, not zero: nothing is taken away for want of data. Plain HTTP; put a proxy of your own
/// before a server that wants TLS.
#[derive(Clone)]
pub struct PrometheusQuery {
    address: String,
    host: HeaderValue,
    path: String,
    query: String,
    bearer: Option<HeaderValue>,
    timeout: Duration,
}

impl PrometheusQuery {
    /// Asks `query` of the server at `url`, such as `http://prometheus:9090`.
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config) if this is no `http` URL.
    pub fn new(url: &str, query: &str) -> Result<Self> {
        let refuse = |why: &str| config("PrometheusQuery::new", format!("the URL {why}"));
        let uri: Uri = url.parse().map_err(|_| refuse("cannot be read"))?;
        if uri.scheme_str() != Some("http") {
            return Err(refuse("must begin with http://; TLS is not spoken here"));
        }
        let authority = uri.authority().ok_or_else(|| refuse("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("must hold no password; use bearer"));
        }
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        let host =
            HeaderValue::from_str(authority.as_str()).map_err(|_| refuse("names no host"))?;
        let base = uri.path().trim_end_matches('/');
        let path = format!("{base}/api/v1/query?query={}", escaped(query));
        let timeout = Duration::from_secs(5);
        Ok(Self { address, host, path, query: query.to_owned(), bearer: None, timeout })
    }

    /// Sends this token.
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config) if it cannot stand in a header.
    pub fn bearer(mut self, token: &str) -> Result<Self> {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| config("bearer", "the token cannot stand in a header"))?;
        value.set_sensitive(true);
        self.bearer = Some(value);
        Ok(self)
    }

    /// How long an answer may take in all. Default 5 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    async fn ask(&self) -> Result<Bytes, BoxError> {
        let stream = TcpStream::connect(&self.address).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut request =
            Request::get(&self.path).header(HOST, &self.host).header(ACCEPT, "application/json");
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        let request = request.body(Empty::<Bytes>::new())?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST).collect().await?.to_bytes();
            if status.is_success() {
                Ok(body)
            } else {
                Err(BoxError::from(format!("status {status}")))
            }
        };
        tokio::pin!(answer);
        // The connection lives as long as the question, in this task.
        tokio::select! {
            body = &mut answer => body,
            ended = connection => { ended?; answer.await }
        }
    }
}

impl fmt::Debug for PrometheusQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, query, .. } = self;
        f.debug_struct("PrometheusQuery")
            .field("address", address)
            .field("query", query)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl MetricSource for PrometheusQuery {
    async fn read(&self) -> Result<Reading> {
        let failed = |message: String| Error::new(ErrorKind::Unavailable, "read", message);
        let address = &self.address;
        let body = match timeout(self.timeout, self.ask()).await {
            Err(_) => return Err(failed(format!("{address} did not answer in time"))),
            Ok(Err(error)) => {
                return Err(failed(format!("{address} could not be asked")).with_source(error));
            }
            Ok(Ok(body)) => body,
        };
        match sum(&body) {
            Ok(value) => Ok(Reading::Total(value)),
            Err(why) => Err(failed(format!("the answer of {address} {why}"))),
        }
    }
}

fn sum(body: &[u8]) -> Result<f64, &'static str> {
    let answer: serde_json::Value = serde_json::from_slice(body).map_err(|_| "is no JSON")?;
    if answer["status"] != "success" {
        return Err("is an error; look at the query");
    }
    let result = answer["data"]["result"].as_array().ok_or("is not a result")?;
    let value = |pair: &serde_json::Value| pair.get(1)?.as_str()?.parse::<f64>().ok();
    let values: Option<Vec<f64>> = match answer["data"]["resultType"].as_str() {
        Some("vector") => result.iter().map(|series| value(&series["value"])).collect(),
        Some("scalar") => value(&answer["data"]["result"]).map(|value| vec![value]),
        _ => return Err("is neither a vector nor a scalar; ask an instant query"),
    };
    let values = values.ok_or("holds no numbers")?;
    if values.is_empty() {
        return Err("is empty: no series matches");
    }
    let total: f64 = values.iter().sum();
    if total.is_finite() { Ok(total) } else { Err("is no finite number") }
}

/// Percent-encoded for a query.
fn escaped(text: &str) -> String {
    use fmt::Write as _;
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_missing_data_is_no_zero() {
        let vector = |values: &str| {
            sum(format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{values}]}}}}"#
            )
            .as_bytes())
        };
        assert_eq!(
            vector(r#"{"metric":{},"value":[1,"3"]},{"metric":{},"value":[1,"4.5"]}"#),
            Ok(7.5)
        );
        assert!(vector("").is_err());
        assert!(vector(r#"{"value":[1,"NaN"]}"#).is_err());
        assert!(vector(r#"{"value":[1]}"#).is_err());
        assert_eq!(
            sum(br#"{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}"#),
            Ok(2.0)
        );
        for bad in ["", "{}", "[]", r#"{"status":"error"}"#, r#"{"status":"success"}"#] {
            assert!(sum(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_that_cannot_work_are_refused_by_name() {
        let refused = |url| PrometheusQuery::new(url, "up").map(drop).unwrap_err().to_string();
        assert!(refused("https://p").contains("TLS"));
        assert!(
            refused("http://u:p@h").contains("bearer")
                && !refused("http://u:secret@h").contains("secret")
        );
        assert!(refused("nonsense").contains("http://") && refused("::").contains("read"));
        let query = PrometheusQuery::new("http://p:9090/base/", "sum(a{b=\"c\"})").unwrap();
        assert_eq!(query.path, "/base/api/v1/query?query=sum%28a%7Bb%3D%22c%22%7D%29");
        assert!(!format!("{:?}", query.bearer("secret").unwrap()).contains("secret"));
    }
}

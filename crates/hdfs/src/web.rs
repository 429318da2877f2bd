//! The page with the effective settings of a server: `/conf`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use basalt_runtime::Network;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::error::{Defect, Error, Result};
use crate::rpc::connect;

/// The maximum length of a page, in bytes. That of Hadoop 3.4 has 300 kB.
const PAGE_BYTES_MAX: u64 = 8 << 20;
/// How long a server may take for its page, which it generates for each request.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// The page as JSON.
#[derive(Deserialize)]
struct Page {
    properties: Vec<Property>,
}

#[derive(Deserialize)]
struct Property {
    key: String,
    value: Option<String>,
}

/// The effective settings of the server whose web pages are at `address`.
///
/// # Errors
/// The server does not answer, or its answer is not such a page.
pub(crate) async fn effective_settings(
    network: &Network,
    address: &Arc<str>,
) -> Result<BTreeMap<String, String>> {
    let server = || Arc::clone(address);
    let lost =
        |error: std::io::Error| Error::Lost { server: server(), reason: error.to_string().into() };
    let asked = timeout(PAGE_TIMEOUT, async {
        let mut stream = connect(network, address, PAGE_TIMEOUT).await?;
        // HTTP/1.0, because its answer ends with the connection. The server returns JSON if the
        // client accepts it; it ignores the parameter `format` that Hadoop's documentation
        // describes.
        let accept = "Accept: application/json";
        let request = format!("GET /conf HTTP/1.0\r\nHost: {address}\r\n{accept}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(lost)?;
        let mut answer = Vec::new();
        stream.take(PAGE_BYTES_MAX).read_to_end(&mut answer).await.map_err(lost)?;
        Ok::<_, Error>(answer)
    });
    let answer = asked.await.map_err(|_| Error::TimedOut {
        server: server(),
        what: "the page /conf",
        limit: PAGE_TIMEOUT,
    })??;
    parse(&answer).map_err(|reason| Error::BadAnswer {
        server: server(),
        defect: Defect::Message { what: "the page /conf", reason },
    })
}

/// The settings in an HTTP answer.
pub(crate) fn parse(answer: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let answer = std::str::from_utf8(answer).map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("it has no body")?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200") {
        return Err(status.to_owned());
    }
    let page: Page = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let properties = page.properties.into_iter();
    Ok(properties.filter_map(|property| Some((property.key, property.value?))).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_is_read() {
        let page = "HTTP/1.1 200 OK\r\nServer: x\r\n\r\n{\"properties\":[\
                    {\"key\":\"a\",\"value\":\"1\",\
                    \"isFinal\":false,\"resource\":\"r\"},{\"key\":\"b\",\"value\":null}]}";
        assert_eq!(parse(page.as_bytes()).unwrap(), [("a".into(), "1".into())].into());
        let refused = parse(b"HTTP/1.1 403 Forbidden\r\n\r\n").unwrap_err();
        assert!(refused.contains("403"), "{refused}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}

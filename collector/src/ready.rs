//! Asks a running collector whether it is ready, for health checks: an image holds no other client, and from elsewhere it shows
//! that Service, policies and names lead to it.

use std::time::Duration;

use thiserror::Error;

/// One that is well answers in milliseconds.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Why it is not.
#[derive(Debug, Error)]
pub enum ReadyError {
    #[error("the collector at {url} is not ready: it answered {status}: {text}")]
    NotReady { url: String, status: u16, text: String },
    #[error(
        "failed to ask {url}: {source}; is the collector running, is this its listen.http, and does the network let this through?"
    )]
    Unreachable { url: String, source: Box<ureq::Error> },
}

/// Asks `GET /readyz` of the collector whose API is at `base`, such as `http://127.0.0.1:8130`. Blocks.
///
/// # Errors
/// Whatever is not 200.
pub fn ask(base: &str) -> Result<String, ReadyError> {
    let url = format!("{}/readyz", base.trim_end_matches('/'));
    // Of the environment's proxies none is asked: the addresses that this is for are near.
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_MAX))
        .http_status_as_error(false)
        .proxy(None)
        .build();
    let unreachable = |source: ureq::Error| ReadyError::Unreachable {
        url: url.clone(),
        source: Box::new(source),
    };
    let mut answer = ureq::Agent::from(config).get(&url).call().map_err(unreachable)?;
    let text = answer.body_mut().read_to_string().map_err(unreachable)?.trim().to_owned();
    match answer.status().as_u16() {
        200 => Ok(text),
        status => Err(ReadyError::NotReady { url, status, text }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// What is told of a server that answers this.
    fn asked(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut caller, _) = listener.accept().unwrap();
            let mut head = [0; 1_000];
            let length = caller.read(&mut head).unwrap();
            assert!(head[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            caller.write_all(answer.as_bytes()).unwrap();
        });
        let told = ask(&format!("http://{address}/"))
            .unwrap_or_else(|error| error.to_string().replace(&address.to_string(), "HERE"));
        server.join().unwrap();
        told
    }

    #[test]
    fn answers() {
        assert_eq!(asked("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"), "ok");
        assert_eq!(
            asked("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nwhy\r\n"),
            "the collector at http://HERE/readyz is not ready: it answered 503: why"
        );
    }

    #[test]
    fn nobody_there() {
        // Bound and not listening for long: the port is free again and answers nobody.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let told = ask(&format!("http://{address}")).unwrap_err().to_string();
        assert!(told.starts_with(&format!("failed to ask http://{address}/readyz: ")), "{told}");
        assert!(told.contains("refused") && told.contains("listen.http"), "{told}");
    }
}

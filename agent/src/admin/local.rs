//! Who may have the agent do something: a process on this machine, and no page in a browser.
//!
//! A page cannot send JSON to another address without asking first, which nobody answers; and a name that
//! was made to point here still stands in the `Host` header, which must be an address of this machine itself.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Peer;

/// Lets a request of this machine through; nobody else's body is read. An answer may take long, as to look at a
/// large journal does; a body may not.
pub(super) async fn only_here(
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if !may_act(peer.address, request.headers()) {
        return refusal();
    }
    if request.method() == Method::GET {
        peer.patience.begin();
    }
    next.run(request).await
}

fn may_act(peer: SocketAddr, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    peer.ip().to_canonical().is_loopback() && is_local(host) && !headers.contains_key(ORIGIN)
}

/// The answer to anybody else.
fn refusal() -> Response {
    let told = "This is done only from the agent's own machine: run tidemark-agent there, with its admin address on \
                127.0.0.1, [::1] or localhost.\n";
    (StatusCode::FORBIDDEN, told).into_response()
}

/// Whether `host`, with or without a port, is an address that means this machine, on whichever machine.
fn is_local(host: &str) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let name = without_port.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_no_page() {
        fn check(peer: &str, host: &str, origin: Option<&str>, expected: bool) {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().unwrap());
            }
            let allowed = may_act(peer.parse().unwrap(), &headers);
            assert_eq!(allowed, expected, "{peer} {host} {origin:?}");
        }
        check("127.0.0.1:5", "127.0.0.1:8128", None, true);
        check("127.0.0.1:5", "localhost", None, true);
        check("[::1]:5", "[::1]:8128", None, true);
        check("[::1]:5", "[::1]", None, true);
        check("[::ffff:127.0.0.1]:5", "LOCALHOST:1", None, true);
        check("10.0.0.1:5", "127.0.0.1:8128", None, false);
        check("127.0.0.1:5", "evil.example:8128", None, false);
        check("127.0.0.1:5", "127.0.0.1.evil.example", None, false);
        check("127.0.0.1:5", "127.0.0.1:8128", Some("http://127.0.0.1:3000"), false);
        check("127.0.0.1:5", "", None, false);
    }
}

//! The URL by which this machine reaches a server that is configured to listen on an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `http://`, and the address; one that stands for every interface stands for loopback here.
#[must_use]
pub fn local_url(address: SocketAddr) -> String {
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(host, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |address: &str, url: &str| assert_eq!(local_url(address.parse().unwrap()), url);
        check("127.0.0.1:8128", "http://127.0.0.1:8128");
        check("0.0.0.0:1", "http://127.0.0.1:1");
        check("[::]:1", "http://[::1]:1");
        check("10.0.0.1:1", "http://10.0.0.1:1");
    }
}

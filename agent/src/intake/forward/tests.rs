//! Over real sockets: what arrives, what is counted, and which addresses are refused.

use super::*;
use std::time::Duration;

fn lines(packer: &mut Packer, lines: &[&str]) {
    packer.begin(0);
    lines.iter().for_each(|line| packer.line(line.as_bytes()));
}

fn counted(figures: &DoorFigures) -> (u64, u64) {
    (figures.forwarded.value(), figures.forward_dropped.value())
}

#[test]
fn lines_arrive_unchanged_over_udp() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let figures = Arc::new(DoorFigures::default());
    let address = ForwardAddress::Udp(server.local_addr().unwrap());
    let mut forwarder = Forwarder::open(&address, &[], None, Arc::clone(&figures)).unwrap();
    let mut packer = Packer::default();
    lines(&mut packer, &["datadog.x:1|c", "y:2|g|@0.5|#a,b|c:ci"]);
    forwarder.send(&mut packer, Packed::Full);
    assert_eq!(counted(&figures), (0, 0));
    forwarder.send(&mut packer, Packed::All);
    let mut datagram = [0; 2_000];
    let length = server.recv(&mut datagram).unwrap();
    assert_eq!(&datagram[..length], b"datadog.x:1|c\ny:2|g|@0.5|#a,b|c:ci");
    assert_eq!(counted(&figures), (2, 0));
}

#[test]
fn a_unix_server_may_be_away_start_anew_or_be_slow() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dsd.socket");
    let figures = Arc::new(DoorFigures::default());
    let address = ForwardAddress::Unix(path.clone());
    let mut forwarder = Forwarder::open(&address, &[], None, Arc::clone(&figures)).unwrap();
    let mut packer = Packer::default();
    let mut send = |packer: &mut Packer| {
        lines(packer, &["a:1|c", "b:1|c"]);
        forwarder.send(packer, Packed::All);
    };
    send(&mut packer);
    assert_eq!(counted(&figures), (0, 2), "nobody is there");
    for sent in [2, 4] {
        let server = UnixDatagram::bind(&path).unwrap();
        send(&mut packer);
        assert_eq!(counted(&figures), (sent, 2));
        let mut datagram = [0; 100];
        assert_eq!(server.recv(&mut datagram).unwrap(), 11);
        std::fs::remove_file(&path).unwrap();
    }
    // A server that does not read: its queue fills, and nothing waits for it.
    let _server = UnixDatagram::bind(&path).unwrap();
    for _ in 0..10_000 {
        send(&mut packer);
    }
    let (forwarded, dropped) = counted(&figures);
    assert_eq!(forwarded + dropped, 20_000 + 6);
    assert!(dropped > 2 && forwarded > 4, "{forwarded} {dropped}");
}

#[test]
fn nobody_at_a_udp_port_is_counted() {
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let figures = Arc::new(DoorFigures::default());
    let address = ForwardAddress::Udp(gone);
    let mut forwarder = Forwarder::open(&address, &[], None, Arc::clone(&figures)).unwrap();
    let mut packer = Packer::default();
    for _ in 0..10 {
        lines(&mut packer, &["a:1|c"]);
        forwarder.send(&mut packer, Packed::All);
    }
    let (forwarded, dropped) = counted(&figures);
    // The kernel tells of a datagram only with a later one.
    assert_eq!(forwarded + dropped, 10);
}

#[test]
fn the_own_doors_are_refused_by_whatever_name() {
    let check = |to: &str, door: &str, own: bool| {
        let address = ForwardAddress::Udp(to.parse().unwrap());
        assert_eq!(is_own_door(&address, &[door.parse().unwrap()], None), own, "{to} at {door}");
    };
    check("127.0.0.1:8125", "127.0.0.1:8125", true);
    check("127.0.0.1:8125", "127.0.0.1:8126", false);
    check("127.0.0.2:8125", "127.0.0.1:8125", false);
    check("127.0.0.2:8125", "0.0.0.0:8125", true);
    check("127.0.0.1:8125", "[::]:8125", true);
    check("[::ffff:127.0.0.1]:8125", "127.0.0.1:8125", true);
    check("[::1]:8125", "0.0.0.0:8125", false);
    // An address of nobody's (for documentation): another machine, as far as this one knows.
    check("192.0.2.1:8125", "0.0.0.0:8125", false);

    let folder = tempfile::tempdir().unwrap();
    let door = folder.path().join("dsd.socket");
    let _server = UnixDatagram::bind(&door).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&door, &link).unwrap();
    let roundabout = folder.path().join("sub/../dsd.socket");
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    for (path, own) in [
        (door.clone(), true),
        (link, true),
        (roundabout, true),
        (folder.path().join("other"), false),
    ] {
        let found = is_own_door(&ForwardAddress::Unix(path.clone()), &[], Some(&door));
        assert_eq!(found, own, "{path:?}");
    }
}

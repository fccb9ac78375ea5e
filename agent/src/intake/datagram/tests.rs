use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use super::*;
use crate::intake::socket_file::SOCKET_MODE_DEFAULT;

/// Longer than any test runs: a wait that is meant to end by an event.
const LONG: Duration = Duration::from_secs(60);

struct Doors {
    datagrams: Datagrams,
    waker: Waker,
    figures: Arc<DoorFigures>,
    unix: PathBuf,
    sender: UdpSocket,
    _folder: tempfile::TempDir,
}

fn doors(udp: &[&str], receive_buffer_bytes: usize) -> Doors {
    let folder = tempfile::tempdir().unwrap();
    let unix = folder.path().join("dsd.socket");
    let config = DatagramConfig {
        udp: udp.iter().map(|address| address.parse().unwrap()).collect(),
        unix: Some(unix.clone()),
        socket_mode: SOCKET_MODE_DEFAULT,
        receive_buffer_bytes,
    };
    let figures = Arc::new(DoorFigures::default());
    let (datagrams, waker) = Datagrams::bind(&config, Arc::clone(&figures)).unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    Doors { datagrams, waker, figures, unix, sender, _folder: folder }
}

impl Doors {
    fn send_udp(&self, bytes: &[u8]) {
        let address = self.datagrams.udp_addresses()[0];
        self.sender.send_to(bytes, address).unwrap();
    }

    fn send_unix(&self, bytes: &[u8]) {
        UnixDatagram::unbound().unwrap().send_to(bytes, &self.unix).unwrap();
    }

    /// Receives until `count` datagrams have come: `door:text` each, with `+` if it was cut.
    fn take(&mut self, count: usize) -> Vec<String> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let received = self.datagrams.receive(LONG, |door, datagram| {
                let text = String::from_utf8_lossy(&datagram.bytes[..datagram.bytes.len().min(8)]);
                taken.push(format!(
                    "{}:{text}{}",
                    door.name(),
                    if datagram.truncated { "+" } else { "" }
                ));
            });
            assert!(received.unwrap().datagrams > 0, "nothing came, and nobody woke");
        }
        taken
    }

    fn nothing_waits(&mut self) {
        let received = self.datagrams.receive(Duration::ZERO, |_, datagram| panic!("{datagram:?}"));
        assert_eq!(received.unwrap(), Received::default());
    }
}

#[test]
fn every_door_brings_its_datagrams_whole_and_in_order() {
    let mut doors = doors(&["127.0.0.1:0"], 1 << 20);
    doors.send_udp(b"a:1|c");
    doors.send_udp(b"");
    doors.send_udp(&[0xff, 0x00, 0x0a]);
    doors.send_udp(b"b:2|c");
    assert_eq!(doors.take(4), ["udp:a:1|c", "udp:", "udp:\u{fffd}\0\n", "udp:b:2|c"]);
    doors.send_unix(b"c:3|c");
    assert_eq!(doors.take(1), ["unix_datagram:c:3|c"]);
    doors.nothing_waits();
    assert_eq!(doors.figures.of(Door::Udp).messages.value(), 4);
    assert_eq!(doors.figures.of(Door::Udp).bytes.value(), 13);
    assert_eq!(doors.figures.of(Door::UnixDatagram).messages.value(), 1);
}

#[test]
fn ipv6_is_served_where_the_host_has_it() {
    let mut doors = doors(&["127.0.0.1:0", "[::1]:0"], 1 << 20);
    let Some(v6) = doors.datagrams.udp_addresses().into_iter().find(SocketAddr::is_ipv6) else {
        return;
    };
    UdpSocket::bind("[::1]:0").unwrap().send_to(b"six", v6).unwrap();
    doors.send_udp(b"four");
    let mut taken = doors.take(2);
    taken.sort();
    assert_eq!(taken, ["udp:four", "udp:six"]);
}

#[test]
fn more_datagrams_than_a_batch_are_left_for_the_next_call() {
    let mut doors = doors(&["127.0.0.1:0"], 1 << 20);
    let count = BATCH_DATAGRAMS_MAX + 3;
    for number in 0..count {
        doors.send_udp(number.to_string().as_bytes());
    }
    let mut taken = Vec::new();
    let first =
        doors.datagrams.receive(LONG, |_, datagram| taken.push(datagram.bytes.to_vec())).unwrap();
    let second =
        doors.datagrams.receive(LONG, |_, datagram| taken.push(datagram.bytes.to_vec())).unwrap();
    assert_eq!((first.datagrams, second.datagrams), (BATCH_DATAGRAMS_MAX, 3));
    let expected: Vec<_> = (0..count).map(|number| number.to_string().into_bytes()).collect();
    assert_eq!(taken, expected);
}

#[test]
fn the_longest_udp_datagram_fits_and_a_longer_unix_one_is_flagged() {
    let mut doors = doors(&["127.0.0.1:0"], 1 << 20);
    doors.send_udp(&vec![b'u'; 65_507]);
    assert_eq!(doors.take(1), ["udp:uuuuuuuu"]);
    doors.send_unix(&vec![b'x'; DATAGRAM_BYTES_MAX]);
    doors.send_unix(&vec![b'y'; DATAGRAM_BYTES_MAX + 1]);
    doors.send_unix(b"z");
    assert_eq!(
        doors.take(3),
        ["unix_datagram:xxxxxxxx", "unix_datagram:yyyyyyyy+", "unix_datagram:z"]
    );
    assert_eq!(doors.figures.of(Door::UnixDatagram).truncated.value(), 1);
}

#[test]
fn a_wake_ends_the_wait_once_even_if_it_came_before() {
    let mut doors = doors(&[], 1 << 20);
    doors.waker.wake();
    doors.waker.wake();
    let received = doors.datagrams.receive(LONG, |_, _| {}).unwrap();
    assert_eq!(received, Received { datagrams: 0, woken: true });
    doors.nothing_waits();

    let waker = doors.waker.clone();
    let other = std::thread::spawn(move || waker.wake());
    assert!(doors.datagrams.receive(LONG, |_, _| {}).unwrap().woken);
    other.join().unwrap();
}

#[test]
fn a_wake_is_seen_after_a_nap_too() {
    let mut doors = doors(&["127.0.0.1:0"], 1 << 20);
    doors.send_udp(b"a");
    doors.take(1);
    assert_eq!(doors.datagrams.pause, Pause::Nap);
    doors.waker.wake();
    assert!(doors.datagrams.receive(LONG, |_, _| {}).unwrap().woken);
}

#[test]
fn what_the_kernel_drops_is_counted_by_stamps_and_by_its_table() {
    let mut doors = doors(&["127.0.0.1:0"], 4_096);
    let flood = |doors: &Doors| (0..500).for_each(|_| doors.send_udp(&[b'x'; 100]));
    let mut received = 0_u64;
    let drain = |doors: &mut Doors, received: &mut u64| {
        while doors.datagrams.receive(Duration::ZERO, |_, _| *received += 1).unwrap().datagrams > 0
        {
        }
    };
    flood(&doors);
    drain(&mut doors, &mut received);
    assert!(received < 500, "the buffer was to overflow");
    assert_eq!(doors.datagrams.kernel_drops(), 0, "the stamps are older than the drops");
    doors.send_udp(b"next");
    drain(&mut doors, &mut received);
    assert_eq!(received + doors.datagrams.kernel_drops(), 501, "the next stamp tells");

    flood(&doors);
    drain(&mut doors, &mut received);
    assert_eq!(doors.datagrams.quiet, Quiet::Since(Duration::ZERO));
    doors.datagrams.quiet = Quiet::Since(QUIET);
    doors.nothing_waits();
    assert_eq!(
        received + doors.datagrams.kernel_drops(),
        1_001,
        "and so does the table, when it is quiet"
    );

    flood(&doors);
    drain(&mut doors, &mut received);
    doors.datagrams.close_datagram_doors();
    assert_eq!(received + doors.datagrams.kernel_drops(), 1_501, "and when the doors close");
    assert_eq!(doors.figures.of(Door::Udp).kernel_drops.value(), doors.datagrams.kernel_drops());
}

#[test]
fn closed_doors_leave_only_the_waker() {
    let mut doors = doors(&["127.0.0.1:0"], 1 << 20);
    let address = doors.datagrams.udp_addresses()[0];
    doors.datagrams.close_datagram_doors();
    assert!(!doors.unix.exists());
    UdpSocket::bind(address).unwrap();
    doors.nothing_waits();
    doors.waker.wake();
    assert!(doors.datagrams.receive(LONG, |_, _| {}).unwrap().woken);
}

#[test]
fn a_taken_port_is_an_error_that_names_it() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = DatagramConfig {
        udp: vec![address],
        unix: None,
        socket_mode: 0o722,
        receive_buffer_bytes: 1 << 20,
    };
    let error = Datagrams::bind(&config, Arc::default()).unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[test]
fn the_granted_receive_buffer_is_reported() {
    let doors = doors(&["127.0.0.1:0"], 100_000);
    assert_eq!(doors.figures.of(Door::Udp).receive_buffer_bytes.value(), 100_000);
}

use super::*;

const PROBE_MILLIS: u64 = 60_000;

/// Runs a script against two collectors; one word an act, and what is expected after it.
///
/// `+S` S seconds pass. `quic`, `tcp`: a link is up. `end`: it ends. `lapse`: in silence. `fail`: no link.
/// `through`, `blocked`: QUIC was probed. After each act the collector, its order, and the next probe.
fn check(choice: TransportChoice, script: &[(&str, &str)]) {
    let mut chooser = Chooser::new(choice, 2, PROBE_MILLIS);
    let mut now = Monotonic(0);
    // The longest waits that there are.
    let random = PROBE_MILLIS / 2;
    for (index, (act, expected)) in script.iter().enumerate() {
        match *act {
            "quic" => chooser.connected(Transport::Quic, now, random),
            "tcp" => chooser.connected(Transport::Tcp, now, random),
            "end" | "fail" => chooser.disconnected(LinkEnd::Otherwise, now, random),
            "lapse" => chooser.disconnected(LinkEnd::Silence, now, random),
            "through" => chooser.probed(true, now, random),
            "blocked" => chooser.probed(false, now, random),
            "" => {}
            wait => {
                let seconds: u64 = wait.strip_prefix('+').unwrap().parse().unwrap();
                now = now.plus(seconds.saturating_mul(1_000));
            }
        }
        let order = chooser.order(now);
        let second = order.second.map_or(String::new(), |second| format!(",{}", second.name()));
        let probe =
            chooser.probe_due().map_or(String::new(), |due| format!(" probe {}", due.0 / 1_000));
        let found = format!("{} {}{second}{probe}", chooser.collector(), order.first.name());
        assert_eq!(found, *expected, "act {index} {act:?} of {script:?}");
    }
}

#[test]
fn quic_comes_first_and_collectors_take_turns() {
    check(
        TransportChoice::Auto,
        &[
            ("", "0 quic,tcp"),
            ("fail", "1 quic,tcp"),
            ("fail", "0 quic,tcp"),
            ("quic", "0 quic,tcp"),
            ("end", "1 quic,tcp"),
        ],
    );
}

#[test]
fn a_session_over_tcp_probes_quic_and_returns_to_it_at_the_same_collector() {
    check(
        TransportChoice::Auto,
        &[
            ("tcp", "0 tcp,quic probe 60"),
            ("+60", "0 quic,tcp probe 60"),
            ("blocked", "0 tcp,quic probe 120"),
            ("+60", "0 quic,tcp probe 120"),
            ("through", "0 quic,tcp"),
            ("end", "0 quic,tcp"),
            ("quic", "0 quic,tcp"),
            ("end", "1 quic,tcp"),
        ],
    );
}

#[test]
fn what_is_blocked_is_remembered_for_each_collector_until_its_time_is_over() {
    check(
        TransportChoice::Auto,
        &[
            ("tcp", "0 tcp,quic probe 60"),
            ("end", "1 quic,tcp"),
            ("fail", "0 tcp,quic"),
            ("fail", "1 quic,tcp"),
            ("fail", "0 tcp,quic"),
            ("+60", "0 quic,tcp"),
        ],
    );
}

#[test]
fn quic_that_dies_in_silence_is_left_for_longer_and_longer() {
    check(
        TransportChoice::Auto,
        &[
            ("quic", "0 quic,tcp"),
            ("lapse", "1 quic,tcp"),
            ("fail", "0 tcp,quic"),
            ("+60", "0 quic,tcp"),
            ("quic", "0 quic,tcp"),
            ("lapse", "1 quic,tcp"),
            ("fail", "0 tcp,quic"),
            ("+60", "0 tcp,quic"),
            ("tcp", "0 tcp,quic probe 180"),
            ("+60", "0 quic,tcp probe 180"),
            ("through", "0 quic,tcp"),
            ("end", "0 quic,tcp"),
            ("quic", "0 quic,tcp"),
            ("end", "1 quic,tcp"),
        ],
    );
}

#[test]
fn an_outage_does_not_speak_against_quic() {
    check(
        TransportChoice::Auto,
        &[
            ("quic", "0 quic,tcp"),
            ("+600", "0 quic,tcp"),
            ("lapse", "1 quic,tcp"),
            ("fail", "0 quic,tcp"),
            ("quic", "0 quic,tcp"),
            ("+599", "0 quic,tcp"),
            ("lapse", "1 quic,tcp"),
            ("fail", "0 tcp,quic"),
        ],
    );
}

#[test]
fn a_transport_that_is_asked_for_is_the_only_one() {
    let check = |transport, order: &str| {
        let script = [("", format!("0 {order}")), ("fail", format!("1 {order}"))];
        let script: Vec<(&str, &str)> =
            script.iter().map(|(act, expected)| (*act, expected.as_str())).collect();
        check(TransportChoice::Only(transport), &script);
        let mut chooser = Chooser::new(TransportChoice::Only(transport), 1, PROBE_MILLIS);
        chooser.connected(transport, Monotonic(0), 0);
        assert_eq!(chooser.probe_due(), None);
        chooser.disconnected(LinkEnd::Silence, Monotonic(0), 0);
        assert_eq!(chooser.order(Monotonic(1)), Order::only(transport));
    };
    check(Transport::Quic, "quic");
    check(Transport::Tcp, "tcp");
}

#[test]
fn probes_are_spread() {
    let mut chooser = Chooser::new(TransportChoice::Auto, 1, PROBE_MILLIS);
    for (random, expected) in [(0, 30_000), (30_000, 60_000), (30_001, 30_000)] {
        chooser.connected(Transport::Tcp, Monotonic(0), random);
        assert_eq!(chooser.probe_due(), Some(Monotonic(expected)));
        chooser = Chooser::new(TransportChoice::Auto, 1, PROBE_MILLIS);
    }
}

#[test]
fn rounds_count_failures_of_all_collectors_in_a_row() {
    let mut chooser = Chooser::new(TransportChoice::Auto, 2, PROBE_MILLIS);
    let mut rounds = Vec::new();
    for _ in 0..5 {
        rounds.push(chooser.round());
        chooser.disconnected(LinkEnd::Otherwise, Monotonic(0), 0);
    }
    assert_eq!(rounds, [0, 0, 1, 1, 2]);
    chooser.connected(Transport::Quic, Monotonic(0), 0);
    assert_eq!(chooser.round(), 0);
}

//! The same (source, id) at two agents: billed once, whatever is restarted or restored in between.

use std::fs;
use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use tidemark_collector::period::Zone;
use tidemark_common::time::Timestamp;
use tidemark_tests::binaries::Program;
use tidemark_tests::doors::{Datagrams, Frames, Lines, Udp};
use tidemark_tests::second_agent::SecondAgent;
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::usage::SEEN_WAIT;
use tidemark_tests::wait::{unix_seconds, until};

const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
deduplicate = "global"
[[meter]]
name = "jobs"
aggregation = "sum"
[[customer]]
id = "acme"
plan = "standard"
[[plan]]
name = "standard"
currency = "EUR"
[[plan.price]]
meter = "api.calls"
unit_price = "1"
[[plan.price]]
meter = "jobs"
unit_price = "100"
"#;
const DAY_SECONDS: u64 = 86_400;

/// A month and more ago, and young enough to be taken.
fn earlier() -> u64 {
    let then = unix_seconds().saturating_sub(DAY_SECONDS.saturating_mul(32));
    then.saturating_sub(then % 900)
}

/// Lines of one event each; `time` is what stands behind the tags.
fn lines(ids: Range<u32>, time: &str) -> String {
    ids.map(|id| format!("api.calls:1|c|#customer:acme,source:shop,id:{id}{time}\n")).collect()
}

/// A batch of CloudEvents of the same source, with or without a time of their own.
fn cloud_events(ids: Range<u32>, time: Option<u64>) -> Result<String> {
    let time = match time {
        Some(seconds) => {
            let at = Timestamp(i64::try_from(seconds)?.saturating_mul(1_000));
            format!(r#","time":"{}""#, Zone::utc().rfc3339(at))
        }
        None => String::new(),
    };
    let event = |id| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"shop","type":"api.calls","subject":"acme"{time}}}"#
        )
    };
    Ok(format!("[{}]", ids.map(event).collect::<Vec<_>>().join(",")))
}

/// A collector and two agents of it.
struct Shop<'s> {
    stack: &'s mut Stack,
    second: SecondAgent,
}

#[derive(Debug, Clone, Copy)]
enum At {
    First,
    Second,
}

impl Shop<'_> {
    fn http(&self, at: At, ids: Range<u32>, time: Option<u64>) -> Result<()> {
        let url = match at {
            At::First => self.stack.events_url(),
            At::Second => self.second.events_url(),
        };
        let body = cloud_events(ids, time)?;
        let kind = "application/cloudevents-batch+json";
        let answer = self.stack.http().post(&url, kind, body)?;
        ensure!(answer.status == 204, "{url}: {answer:?}");
        Ok(())
    }

    fn events(&self, at: At, text: &str) -> Result<()> {
        let path = match at {
            At::First => self.stack.path("events.socket"),
            At::Second => self.second.path("events.socket"),
        };
        let mut door = Lines::to(&path)?;
        door.send(text.as_bytes(), u64::try_from(text.lines().count())?)?;
        let refusals = door.wait_durable()?;
        ensure!(refusals.is_empty(), "{refusals:?}");
        Ok(())
    }

    /// Waits until either agent has accepted so many events, ever, and all of them are posted.
    fn wait_posted(&self, first: u64, second: u64) -> Result<()> {
        until(&format!("{first} events to be posted"), SEEN_WAIT, || {
            let metrics = self.stack.agent_metrics().map_err(|error| format!("{error:#}"))?;
            let count = |name| metrics.count_or_zero(name);
            let seen = count("tidemark_agent_accepted_events_total");
            let posted = count("tidemark_agent_posted_events_total");
            if seen >= first && posted == seen && count("tidemark_agent_in_transit_events") == 0 {
                return Ok(());
            }
            Err(format!("accepted {seen}, posted {posted}"))
        })?;
        self.second.wait_posted(self.stack, second)
    }

    /// The bill of this period and of the one 32 days ago, in EUR; and events that are listed as come again.
    fn check(&self, now: &str, then: &str, duplicates: usize) -> Result<()> {
        let bill = self.stack.api().bill("acme")?;
        ensure!(bill.total == now, "{} instead of {now} is billed: {bill:?}", bill.total);
        let path = format!("/v1/customers/acme/bill?at={}", earlier());
        let answer = self.stack.api().get(&path)?.json()?;
        ensure!(answer["total"] == then, "{then} of the earlier period: {answer}");
        let path = "/v1/duplicates?customer=acme&meter=api.calls&limit=10000";
        let answer = self.stack.api().get(path)?.json()?;
        let listed = answer["duplicates"].as_array().context("a list")?;
        ensure!(listed.len() == duplicates, "{} listed, not {duplicates}", listed.len());
        for one in listed {
            let place = |of: &serde_json::Value| {
                ["stream", "sequence", "line"].map(|field| of[field].to_string())
            };
            ensure!(one["events"] == 1 && place(one) != place(&one["first"]), "{one}");
        }
        let metrics = self.stack.collector_metrics()?;
        let posted = metrics.count("tidemark_collector_conservation_posted_events")?;
        let usage = metrics.count("tidemark_collector_conservation_usage_events")?;
        ensure!(posted == usage, "{posted} posted, {usage} in the totals");
        Ok(())
    }

    /// Kills all three, and starts them again.
    fn kill_all(&mut self) -> Result<()> {
        self.second.kill()?;
        self.stack.kill_both()?;
        self.stack.start_both()?;
        self.second.start(self.stack)
    }
}

/// Everything that a command says, if it ends well.
fn collector(stack: &Stack, arguments: &[&str]) -> Result<String> {
    let (code, said) = stack.command(Program::Collector, arguments)?;
    ensure!(code == Some(0), "{arguments:?}: {code:?} {said}");
    Ok(said)
}

#[test]
fn the_same_id_at_two_agents_is_billed_once() -> Result<()> {
    let settings = Settings::new(Ports::free()?, CATALOGUE)
        .collector("session.idle_max", "2s")
        .collector("archive.folder", "archive");
    Stack::run(settings, |stack| {
        let second = SecondAgent::beside(stack)?;
        let mut shop = Shop { stack, second };

        // In one period, by the HTTP door; either may come first.
        shop.http(At::First, 0..20, None)?;
        shop.http(At::Second, 10..30, None)?;
        shop.wait_posted(20, 20)?;
        shop.check("30.00", "0.00", 10)?;

        // Across two: the second has another time.
        shop.http(At::First, 100..110, Some(earlier()))?;
        shop.wait_posted(30, 20)?;
        shop.http(At::Second, 100..110, None)?;
        shop.wait_posted(30, 30)?;
        shop.check("30.00", "10.00", 20)?;

        // Killed, all of them, while some is on its way.
        shop.http(At::First, 200..250, None)?;
        shop.kill_all()?;
        shop.http(At::Second, 200..250, None)?;
        shop.wait_posted(80, 80)?;
        shop.check("80.00", "10.00", 70)?;

        // An agent that has lost its disk knows nothing of what it was sent.
        shop.stack.kill_agent()?;
        fs::remove_file(shop.stack.path("journal.redb"))?;
        shop.stack.start_agent()?;
        shop.stack.wait_connected()?;
        shop.http(At::First, 0..30, None)?;
        shop.http(At::First, 200..250, None)?;
        shop.wait_posted(80, 80)?;
        shop.check("80.00", "10.00", 150)?;

        // What was made of it stands in the batches, not in the totals alone.
        shop.second.kill()?;
        shop.stack.stop_agent()?;
        shop.stack.stop_collector()?;
        let said = collector(shop.stack, &["fsck", "--data-dir", "ledger"])?;
        ensure!(said.ends_with("sound\n"), "{said}");
        fs::remove_file(shop.stack.path("ledger/totals.redb"))?;
        shop.stack.start_both()?;
        shop.second.start(shop.stack)?;
        shop.check("80.00", "10.00", 150)?;

        // A ledger that comes back from its archive knows what came before, and what was suppressed.
        shop.second.kill()?;
        shop.stack.stop_agent()?;
        shop.stack.stop_collector()?;
        fs::remove_dir_all(shop.stack.path("ledger"))?;
        collector(shop.stack, &["restore-from-archive", "--config", "collector.toml"])?;
        shop.stack.start_both()?;
        shop.second.start(shop.stack)?;
        shop.http(At::Second, 0..10, None)?;
        shop.wait_posted(80, 90)?;
        shop.check("80.00", "10.00", 160)
    })
}

#[test]
fn every_door_that_takes_ids_is_the_same_door() -> Result<()> {
    Stack::run(Settings::new(Ports::free()?, CATALOGUE), |stack| {
        let second = SecondAgent::beside(stack)?;
        let shop = Shop { stack, second };
        shop.events(At::First, &lines(0..10, ""))?;
        shop.http(At::First, 10..20, None)?;
        let json: String = (20..30)
            .map(|id| {
                format!(r#"{{"meter":"api.calls","customer":"acme","source":"shop","id":"{id}"}}"#)
                    + "\n"
            })
            .collect();
        shop.events(At::First, &json)?;
        shop.wait_posted(30, 0)?;

        let time = format!("|T{}", earlier());
        Udp::to(shop.second.ports().udp)?.send(lines(0..8, &time).as_bytes())?;
        Datagrams::to(&shop.second.path("dsd.socket"))?.send(lines(8..16, "").as_bytes())?;
        Frames::to(&shop.second.path("dsd-stream.socket"))?
            .send(lines(16..24, &time).as_bytes())?;
        shop.events(At::Second, &lines(24..32, ""))?;
        shop.wait_posted(30, 32)?;
        shop.check("32.00", "0.00", 30)?;

        // Packed: each value is an event of its own, and all of them come again.
        let packed = "api.calls:1:2:3|d|#customer:acme,source:shop,id:packed\n";
        shop.events(At::First, packed)?;
        shop.events(At::Second, packed)?;
        // Without an id, and of a meter that does not ask for it: as ever.
        let plain = "api.calls:1|c|#customer:acme\njobs:1|c|#customer:acme,source:shop,id:1\n";
        shop.events(At::First, plain)?;
        shop.events(At::Second, plain)?;
        shop.wait_posted(35, 37)?;
        shop.check("240.00", "0.00", 33)?;
        let without =
            shop.stack.agent_metrics()?.count("tidemark_agent_events_without_id_total")?;
        ensure!(without == 1, "{without} events without an id");
        let streams = shop.stack.api().streams()?.streams;
        let counted: u64 =
            streams.iter().filter_map(|stream| stream.evidence.get("without_id")).sum();
        ensure!(counted == 2, "{counted} events without an id");
        let suspense = shop.stack.api().suspense()?;
        ensure!(suspense.is_empty(), "{suspense:?}");
        Ok(())
    })
}

#[test]
fn ids_outlive_a_backup_a_catalogue_and_the_first_welcome() -> Result<()> {
    let settings = Settings::new(Ports::free()?, CATALOGUE).collector("session.idle_max", "2s");
    Stack::run(settings, |stack| {
        let second = SecondAgent::beside(stack)?;
        let shop = Shop { stack, second };
        shop.events(At::First, &lines(0..10, ""))?;
        shop.wait_posted(10, 0)?;
        collector(shop.stack, &["backup", "--data-dir", "ledger", "--to", "backup"])?;
        // Newer than the backup: the agent sends it again.
        shop.events(At::First, &lines(10..20, ""))?;
        shop.events(At::Second, &lines(5..15, ""))?;
        shop.wait_posted(20, 10)?;
        shop.check("20.00", "0.00", 10)?;
        shop.stack.stop_collector()?;
        fs::rename(shop.stack.path("ledger"), shop.stack.path("lost"))?;
        collector(shop.stack, &["restore", "--from", "backup", "--data-dir", "ledger"])?;
        shop.stack.start_collector()?;
        until("all to be posted again", SEEN_WAIT, || {
            shop.check("20.00", "0.00", 10).map_err(|error| format!("{error:#}"))
        })?;

        // Other rules: a meter more. What was known stays known.
        shop.stack.change_catalogue(&format!(
            "{CATALOGUE}\n[[meter]]\nname = \"more\"\naggregation = \"sum\"\n"
        ))?;
        shop.events(At::Second, &lines(15..25, ""))?;
        shop.wait_posted(20, 20)?;
        shop.check("25.00", "0.00", 15)?;

        // An agent that was never welcomed keeps ids until it is.
        shop.stack.stop_agent()?;
        shop.stack.stop_collector()?;
        fs::remove_file(shop.stack.path("journal.redb"))?;
        shop.stack.start_agent()?;
        shop.events(At::First, &lines(20..30, ""))?;
        shop.stack.kill_agent()?;
        shop.stack.start_agent()?;
        shop.stack.start_collector()?;
        shop.stack.wait_connected()?;
        shop.wait_posted(10, 20)?;
        shop.check("30.00", "0.00", 20)
    })
}

//! Two network namespaces, for the agent and for the collector, and the faults of the link between.
//!
//! ```text
//!   agent's namespace                      collector's namespace
//!     data  .9  --------- faults ---------- .10  data        QUIC
//!     control .2                             .6  control     doors, metrics, API
//!         |                                   |
//!        .1            this process          .5
//! ```
//!
//! Packets are dropped where they arrive, as a network does it: the sender is told nothing. Addresses
//! are of 198.18.0.0/15, which RFC 2544 keeps for tests.
//!
//! **Owns** the namespaces; they are gone when this is dropped, with all that is in them. Drop it after
//! the processes. What a killed run left behind is removed by the next one.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};

use super::system::call;
use crate::process::Launch;
use crate::random::Random;
use crate::settings::Hosts;

const PREFIX: &str = "tidemark";

/// One end of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Agent,
    Collector,
}

impl End {
    const BOTH: [Self; 2] = [Self::Agent, Self::Collector];
}

pub(super) struct Namespaces {
    /// Of names, unique on this machine.
    tag: String,
    /// The third byte of all addresses.
    net: u8,
}

impl Namespaces {
    pub(super) fn new(random: &mut Random) -> Result<Self> {
        remove_left()?;
        let net = free_net(random)?;
        let this = Self { tag: format!("{PREFIX}-{}-{net}", std::process::id()), net };
        this.build()?;
        Ok(this)
    }

    fn build(&self) -> Result<()> {
        for (end, here, there) in [(End::Agent, 1, 2), (End::Collector, 5, 6)] {
            let (name, outside) = (self.name(end), self.outside(end));
            call(&["ip", "netns", "add", &name])?;
            call(&["ip", "-n", &name, "link", "set", "lo", "up"])?;
            let pair = ["type", "veth", "peer", "name", "control", "netns", &name];
            call(&[&["ip", "link", "add", &outside], &pair[..]].concat())?;
            let here = format!("{}/30", self.address(here));
            call(&["ip", "addr", "add", &here, "dev", &outside])?;
            call(&["ip", "link", "set", &outside, "up"])?;
            self.up(end, "control", there)?;
        }
        let (agent, collector) = (self.name(End::Agent), self.name(End::Collector));
        let pair = ["type", "veth", "peer", "name", "data", "netns", &collector];
        call(&[&["ip", "-n", &agent, "link", "add", "data"], &pair[..]].concat())?;
        self.up(End::Agent, "data", 9)?;
        self.up(End::Collector, "data", 10)?;
        // Nothing is in it; without the tool or the kernel's part there are no partitions.
        self.inside(End::Agent, &["nft", "list", "ruleset"])?;
        Ok(())
    }

    fn up(&self, end: End, device: &str, number: u8) -> Result<()> {
        let (name, address) = (self.name(end), format!("{}/30", self.address(number)));
        call(&["ip", "-n", &name, "addr", "add", &address, "dev", device])?;
        call(&["ip", "-n", &name, "link", "set", device, "up"])?;
        Ok(())
    }

    /// Where this process reaches both.
    pub(super) fn hosts(&self) -> Hosts {
        Hosts { agent: self.address(2), collector: self.address(6) }
    }

    /// Where the agent reaches the collector, through the faults.
    pub(super) fn uplink(&self) -> Ipv4Addr {
        self.address(10)
    }

    /// Starts a program at one end.
    pub(super) fn launch(&self, end: End) -> Launch {
        let name = self.name(end);
        let before = ["ip", "netns", "exec", &name].map(str::to_owned).to_vec();
        Launch { before, ..Launch::default() }
    }

    /// Drops what arrives at `end` and matches; an nftables expression, empty for all.
    pub(super) fn drop_at(&self, end: End, matching: &str) -> Result<()> {
        let hook = "type filter hook input priority 0; policy accept;";
        let rule = format!("iifname \"data\" {matching} counter drop");
        let rules = format!("table inet faults {{\nchain input {{\n{hook}\n{rule}\n}}\n}}\n");
        self.inside(end, &["nft", &rules])?;
        Ok(())
    }

    /// What an end sends leaves by this queueing discipline of `tc`.
    pub(super) fn shape(&self, end: End, discipline: &[&str]) -> Result<()> {
        let add = ["tc", "qdisc", "replace", "dev", "data", "root"];
        self.inside(end, &[&add, discipline].concat())?;
        Ok(())
    }

    /// The link is well again. Returns how many packets the filters dropped.
    pub(super) fn heal(&self) -> Result<u64> {
        let mut dropped: u64 = 0;
        for end in End::BOTH {
            if let Ok(rules) = self.inside(end, &["nft", "list", "table", "inet", "faults"]) {
                let mut words = rules.split_whitespace();
                let packets = words.find(|word| *word == "packets").and_then(|_| words.next());
                let packets: u64 = packets.and_then(|count| count.parse().ok()).unwrap_or(0);
                dropped = dropped.saturating_add(packets);
                self.inside(end, &["nft", "delete", "table", "inet", "faults"])?;
            }
            // An error means that there was none.
            drop(self.inside(end, &["tc", "qdisc", "del", "dev", "data", "root"]));
        }
        Ok(dropped)
    }

    /// Whether this kernel has the discipline.
    pub(super) fn has_netem(&self) -> bool {
        let has = self.shape(End::Agent, &["netem", "delay", "1ms"]).is_ok();
        drop(self.heal());
        has
    }

    fn inside(&self, end: End, words: &[&str]) -> Result<String> {
        let name = self.name(end);
        call(&[&["ip", "netns", "exec", &name], words].concat())
    }

    fn name(&self, end: End) -> String {
        match end {
            End::Agent => format!("{}-agent", self.tag),
            End::Collector => format!("{}-collector", self.tag),
        }
    }

    /// An interface of this process' namespace; at most 15 characters.
    fn outside(&self, end: End) -> String {
        match end {
            End::Agent => format!("tdm{}a", self.net),
            End::Collector => format!("tdm{}c", self.net),
        }
    }

    fn address(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.net, number)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for end in End::BOTH {
            // The pair's other end goes with it, but only after the last socket inside.
            drop(call(&["ip", "link", "del", &self.outside(end)]));
            drop(call(&["ip", "netns", "del", &self.name(end)]));
        }
    }
}

/// A net whose addresses this machine does not have.
fn free_net(random: &mut Random) -> Result<u8> {
    let taken = call(&["ip", "-4", "addr"])?;
    let nets = (0..100).map(|_| u8::try_from(random.below(256)));
    let free = nets.flatten().find(|net| !taken.contains(&format!("198.18.{net}.")));
    free.context("no net of 198.18.0.0/16 is free")
}

/// Removes namespaces whose process is gone.
fn remove_left() -> Result<()> {
    for line in call(&["ip", "netns", "list"])?.lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let mut parts = name.split('-');
        if parts.next() == Some(PREFIX)
            && let Some(id) = parts.next()
            && !Path::new("/proc").join(id).exists()
        {
            call(&["ip", "netns", "del", name])?;
        }
    }
    Ok(())
}

//! The product as a user runs it: two processes, real sockets, real files, real certificates.
//!
//! ```text
//! binaries   where cargo put the two programs          wait       the one place that waits
//! settings   agent.toml, collector.toml, catalogue     process    one program: log, kill -9, SIGTERM
//! stack      agent + collector in a folder of their own
//! http       requests with a time limit                metrics    OpenMetrics text, read
//! api        the collector's answers                   conserved  accepted = posted + in transit
//! doors      senders, one per door                     resend     a client that resends until durable
//! audit      both programs' files, byte by byte    full_journal  an agent fed until its journal is full
//! expected   what the usage API must show              random     seeded numbers
//! udp_relay  UDP that a test lets through          second_rater amounts, from the words of pricing.md
//! rated_twice  a running product's bills and documents, beside the second rater's
//! scenarios  every other fault of processes, networks, disks and clocks
//! interrupts  Ctrl-C
//! small_memory  the agent in a control group that bounds its memory    control_group  such a group
//! kill_loop  kill -9 under load     demo  the demonstration     speed  rates and memory
//! billing_kill  kill -9 amid billing runs    billing_speed  how long they take
//! proof_speed  how long proving takes, and how large proofs are
//! churn      a year of pods that come and go, in simulated time
//! ```
//!
//! **Owns** everything that more than one test or program needs. **Does not own** any rule of the
//! product: it knows formats and addresses from the documentation, and links neither of the two.

pub mod api;
pub mod audit;
pub mod billing_kill;
pub mod billing_speed;
pub mod binaries;
pub mod churn;
pub mod conserved;
pub mod control_group;
pub mod demo;
pub mod doors;
pub mod expected;
pub mod full_journal;
pub mod http;
pub mod ids_speed;
pub mod interrupts;
pub mod kill_loop;
pub mod metrics;
pub mod process;
pub mod proof_speed;
pub mod random;
pub mod rated_twice;
pub mod resend;
pub mod scenarios;
pub mod second_agent;
pub mod second_rater;
pub mod settings;
pub mod small_memory;
pub mod speed;
pub mod stack;
pub mod udp_relay;
pub mod usage;
pub mod wait;
mod welcome;
pub mod world;

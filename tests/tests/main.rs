//! Whole-product tests: an agent and a collector as two processes, real sockets, files and
//! certificates. Build both first: `cargo build -p tidemark-agent -p tidemark-collector`.

mod api;
mod archived;
mod bad_input;
mod catalogue;
mod churn;
mod commands;
mod dead_letters;
mod deduplicated;
mod delivery;
mod deployed;
mod doors;
mod drained;
mod events;
mod forward;
mod full;
mod gate;
mod grants;
mod house;
mod identity;
mod inspect;
mod kill9;
mod moved_under_kills;
mod object_store;
mod printed;
mod rating;
mod real_clients;
mod restart;
mod restored;
mod scenarios;
mod small_memory;
mod uplink;
mod verified;
mod world;

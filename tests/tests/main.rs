//! Whole-product tests: an agent and a collector as two processes, real sockets, files and
//! certificates. Build both first: `cargo build -p tidemark-agent -p tidemark-collector`.

mod api;
mod bad_input;
mod catalogue;
mod commands;
mod delivery;
mod grants;
mod house;
mod kill9;
mod real_clients;
mod restart;
mod restored;

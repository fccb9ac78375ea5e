//! libFuzzer's way into [`tidemark_fuzz::cloud_events`].

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tidemark_fuzz::cloud_events::check(input));

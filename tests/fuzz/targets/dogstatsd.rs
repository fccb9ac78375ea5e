//! libFuzzer's way into [`tidemark_fuzz::dogstatsd`].

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tidemark_fuzz::dogstatsd::check(input));

//! libFuzzer's way into [`tidemark_fuzz::catalogue`].

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tidemark_fuzz::catalogue::check(input));

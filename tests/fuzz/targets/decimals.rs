//! libFuzzer's way into [`tidemark_fuzz::decimals`].

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tidemark_fuzz::decimals::check(input));

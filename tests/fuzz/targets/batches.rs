//! libFuzzer's way into [`tidemark_fuzz::batches`].

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tidemark_fuzz::batches::check(input));

//! libFuzzer's way into [`tidemark_fuzz::frames`].

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tidemark_fuzz::frames::check(input));

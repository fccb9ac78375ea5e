//! libFuzzer's way into [`tidemark_fuzz::json_lines`].

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tidemark_fuzz::json_lines::check(input));

//! libFuzzer's way into [`tidemark_fuzz::journal_rows`].

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tidemark_fuzz::journal_rows::check(input));

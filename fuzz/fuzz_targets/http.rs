//! `cargo +nightly fuzz run http -- -dict=fuzz/dictionaries/http.dict`
#![no_main]

#[path = "../bodies/http.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    body::run(data);
});

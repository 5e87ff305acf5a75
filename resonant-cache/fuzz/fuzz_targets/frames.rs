#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| resonant_cache::testing::inputs::frames(data));

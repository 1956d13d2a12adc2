//! See `crinkle_fuzz::message`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = crinkle_fuzz::message(bytes);
});

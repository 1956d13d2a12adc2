//! See `crinkle_fuzz::reply`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = crinkle_fuzz::reply(bytes);
});

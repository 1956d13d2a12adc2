//! See `crinkle_fuzz::record`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = crinkle_fuzz::record(bytes);
});

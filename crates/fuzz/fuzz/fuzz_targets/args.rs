//! See `crinkle_fuzz::args`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = crinkle_fuzz::args(bytes);
});

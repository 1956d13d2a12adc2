//! See `crinkle_fuzz::tags`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = crinkle_fuzz::tags(bytes);
});

//! See `crinkle_fuzz::ledger`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = crinkle_fuzz::ledger(bytes);
});

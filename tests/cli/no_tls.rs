//! A command that was built without TLS.

use crate::crinkle;

#[test]
fn a_url_that_needs_tls_says_how_to_have_it() {
    for args in [
        &["--url", "rediss://localhost:6379"][..],
        &["--url", "rediss://a,rediss://b", "--sentinel", "x"],
    ] {
        let ran = crinkle([args, &["doctor"]].concat());
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains("cargo install crinkle-cli --features tls"), "{ran:?}");
    }
}

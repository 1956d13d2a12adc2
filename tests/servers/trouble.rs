//! A server that is down, hung, full, hostile or not ours.

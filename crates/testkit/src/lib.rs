//! Tools that judge Crinkle.

pub mod model;

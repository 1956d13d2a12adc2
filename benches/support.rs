//! Benchmarks of Crinkle; the scoreboard comes here.

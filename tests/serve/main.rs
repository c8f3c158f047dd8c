//! `headwater serve`, run as a program and asked over its port.

#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a panic is how a test fails; modules share what is public")]

mod apis;
mod behaves;
mod clients;
mod fuzz;
mod load;
mod refuses;
mod support;

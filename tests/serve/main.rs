//! `headwater serve`, run as a program and asked over its port.

#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a panic is how a test fails; modules share what is public")]

mod apis;
mod behaves;
#[cfg(unix)]
mod browser;
mod clients;
#[cfg(unix)]
#[path = "../common/mod.rs"]
mod common;
mod fuzz;
mod load;
mod operations;
#[cfg(unix)]
mod page;
mod refuses;
#[cfg(unix)]
mod sheet;
mod support;

//! What the tests of the hub share.

pub(crate) mod place;
pub(crate) mod server;

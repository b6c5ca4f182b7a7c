//! Addresses of listeners.

use std::net::SocketAddr;
#[cfg(unix)]
use std::path::PathBuf;

use crate::common::failure::{Failure, Outcome};

/// The address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(PathBuf),
}

impl Address {
    pub(super) fn parse(text: &str) -> Outcome<Address> {
        #[cfg(unix)]
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Address::Unix(path.into()));
        }
        text.parse().map(Address::Tcp).map_err(|_| {
            Failure::usage(
                format!("{text:?} is not an address"),
                "an address looks like 127.0.0.1:8787, [::1]:8787 or unix:/run/kv.socket",
            )
        })
    }

    /// None for no listener.
    pub(super) fn parse_or_off(text: &str) -> Outcome<Option<Address>> {
        if text == "off" {
            Ok(None)
        } else {
            Address::parse(text).map(Some)
        }
    }

    /// Whether only this machine can reach it.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Address::Tcp(address) => address.ip().is_loopback(),
            #[cfg(unix)]
            Address::Unix(_) => true,
        }
    }
}

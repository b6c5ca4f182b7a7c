//! Where a request comes from, and what it speaks.

use std::net::IpAddr;
use std::sync::Arc;

use super::access::Access;
use super::error::ApiError;
use super::memory::Holder;
use super::response::ApiResponse;
use super::{binding, rest};

/// A listener's protocol and kind of socket.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) protocol: Protocol,
    /// A unix socket, which no web page can reach.
    pub(super) is_socket: bool,
    /// The number of the listener.
    pub(super) listener: usize,
    /// The other side of the connection, if it has an address.
    pub(super) peer: Option<IpAddr>,
}

impl From<Protocol> for Endpoint {
    fn from(protocol: Protocol) -> Endpoint {
        Endpoint {
            protocol,
            is_socket: false,
            listener: 0,
            peer: None,
        }
    }
}

impl Endpoint {
    pub(super) fn of(protocol: Protocol, listener: usize) -> Endpoint {
        Endpoint {
            listener,
            ..protocol.into()
        }
    }

    /// Whether it answers for the server's health.
    pub(super) fn has_health(&self) -> bool {
        matches!(self.protocol, Protocol::Rest { .. })
    }

    /// Whom the memory of a client's requests is counted for.
    pub(super) fn holder(&self, access: &Access) -> Holder {
        match access.token() {
            Some(token) => Holder::Token(token.into()),
            None => Holder::Peer(self.listener, self.peer),
        }
    }
}

#[derive(Clone)]
pub(super) enum Protocol {
    Rest {
        page: bool,
    },
    /// For this namespace, or for the one named by a header.
    Binding {
        namespace: Option<Arc<str>>,
    },
}

impl Protocol {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Protocol::Rest { .. } => "rest",
            Protocol::Binding { .. } => "binding",
        }
    }

    /// An error response.
    pub(super) fn refused(&self, error: &ApiError) -> ApiResponse {
        match self {
            Protocol::Rest { .. } => rest::envelope::refused(error),
            Protocol::Binding { .. } => binding::refused(error),
        }
    }
}

//! The memory for bodies of requests and for large responses.

mod ledger;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use super::error::ApiError;
use crate::planted::{Planted, planted};
use ledger::{Growth, Ledger, Use};

pub(super) use ledger::Holder;

/// Bounds the memory for bodies and responses in use at a time.
pub(super) struct BodyMemory {
    shared: Arc<Accounts>,
    /// The most that one claim can hold.
    largest: usize,
    /// Longest wait for memory, or for the next bytes of a body.
    pub(super) timeout: Duration,
}

struct Accounts {
    ledger: Mutex<Ledger>,
    /// Bytes given back since this was asked last.
    given_back: AtomicUsize,
}

impl Accounts {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a claim gets no more memory.
fn no_memory() -> ApiError {
    ApiError::new(503, 10001, "the server has no memory for this request now; try again")
}

impl BodyMemory {
    pub(super) fn new(bytes: usize, timeout: Duration) -> BodyMemory {
        let ledger = Ledger::new(bytes);
        BodyMemory {
            largest: ledger.largest(),
            shared: Arc::new(Accounts {
                ledger: Mutex::new(ledger),
                given_back: AtomicUsize::new(0),
            }),
            timeout,
        }
    }

    /// Memory for a request that will need at most this much; nothing is held yet. An error if it
    /// can never have as much.
    pub(super) fn claim(&self, holder: &Holder, need: usize) -> Result<Claim, ApiError> {
        let claim = self.claim_up_to(holder, need);
        claim.check(need)?;
        Ok(claim)
    }

    /// As [`BodyMemory::claim`], if it is not known how much will be needed.
    pub(super) fn claim_up_to(&self, holder: &Holder, need: usize) -> Claim {
        self.begin(holder, need, Use::Body)
    }

    fn begin(&self, holder: &Holder, need: usize, what_for: Use) -> Claim {
        let (id, woken) = self.shared.ledger().begin(holder.clone(), need, what_for);
        Claim {
            accounts: Arc::clone(&self.shared),
            id,
            woken,
            held: 0,
            largest: self.largest,
            timeout: self.timeout,
        }
    }

    /// Bytes given back since this was called last.
    pub(super) fn take_given_back(&self) -> usize {
        self.shared.given_back.swap(0, Ordering::Relaxed)
    }

    /// Memory for a response of at most this many bytes; waits for it if much is in use. Waiting is
    /// not for threads that may block: there are too few of them for all that may wait.
    pub(super) async fn for_response(&self, holder: &Holder, bytes: usize) -> Result<Claim, ApiError> {
        let mut claim = self.begin(holder, bytes, Use::Response);
        claim.check(bytes)?;
        claim.grow(bytes).await?;
        Ok(claim)
    }
}

/// The memory of one request or response, given back when this is dropped.
pub(super) struct Claim {
    accounts: Arc<Accounts>,
    id: u64,
    woken: Arc<Notify>,
    held: usize,
    largest: usize,
    timeout: Duration,
}

impl Claim {
    /// An error if so much is more than there can ever be.
    pub(super) fn check(&self, need: usize) -> Result<(), ApiError> {
        if need <= self.largest || planted(Planted::AnyBodyMemory) {
            return Ok(());
        }
        let message = format!(
            "the request takes {} MiB of memory, and --body-memory-mib allows it {}",
            need.div_ceil(1 << 20),
            self.largest >> 20
        );
        Err(ApiError::new(413, 10012, message))
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// What this will need at most, now that more is known.
    pub(super) fn will_need(&self, need: usize) -> Result<(), ApiError> {
        self.check(need)?;
        self.accounts.ledger().will_need(self.id, need);
        Ok(())
    }

    /// Takes more memory; waits for it if much is in use, but not for ever: all in all no longer
    /// than the timeout.
    pub(super) async fn grow(&mut self, by: usize) -> Result<(), ApiError> {
        if by == 0 || planted(Planted::AnyBodyMemory) {
            return Ok(());
        }
        let asked = Instant::now();
        let granted = tokio::time::timeout(self.timeout, async {
            loop {
                match self.accounts.ledger().grow(self.id, by) {
                    Growth::Granted => return Ok(()),
                    Growth::PushedOut => return Err(no_memory()),
                    Growth::Waits => {}
                }
                self.woken.notified().await;
            }
        });
        let granted = granted.await;
        self.timeout = self.timeout.saturating_sub(asked.elapsed());
        match granted {
            Ok(Ok(())) => {
                self.held += by;
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                self.accounts.ledger().give_up(self.id);
                Err(no_memory())
            }
        }
    }

    /// Holds only this much from now on, and needs no more.
    pub(super) fn settle(&mut self, bytes: usize) {
        let bytes = bytes.min(self.held);
        self.accounts.given_back.fetch_add(self.held - bytes, Ordering::Relaxed);
        self.held = bytes;
        self.accounts.ledger().settle(self.id, bytes);
    }

    /// A response in this memory, which is held until it is sent.
    pub(super) fn response(mut self, made: Vec<u8>) -> Bytes {
        struct Owner(
            Vec<u8>,
            #[expect(dead_code, reason = "kept until the response is sent")] Claim,
        );
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        self.settle(made.capacity());
        Bytes::from_owner(Owner(made, self))
    }

    /// Returns once others need what this holds.
    pub(super) async fn pushed_out(&self) -> ApiError {
        while !self.accounts.ledger().is_pushed_out(self.id) {
            self.woken.notified().await;
        }
        no_memory()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.accounts.given_back.fetch_add(self.held, Ordering::Relaxed);
        self.accounts.ledger().end(self.id);
    }
}

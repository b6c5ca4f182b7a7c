//! What a call is checked for before anything is read or written.

use crate::engine::Engine;
use crate::error::Result;
use crate::index::namespaces::NamespaceState;
use crate::options::{Lifetime, PutOptions};
use crate::planted::{Planted, planted};

/// Refuses work on a namespace that was dropped, or whose store was closed.
pub(super) fn check_namespace(engine: &Engine, namespace: &NamespaceState) -> Result<()> {
    engine.context.check_open()?;
    namespace.check_present()
}

/// Checks a put against the limits, and computes its expiry.
#[inline]
pub(super) fn checked_put(
    engine: &Engine,
    namespace: &NamespaceState,
    [key, value]: [&[u8]; 2],
    options: &PutOptions,
) -> Result<Option<u64>> {
    let limits = &engine.context.options.limits;
    limits.check_key(key)?;
    limits.check_value(value)?;
    check_options(engine, namespace, options)
}

/// Checks the options of a put against the limits, and computes its expiry.
#[inline]
pub(super) fn check_options(engine: &Engine, namespace: &NamespaceState, options: &PutOptions) -> Result<Option<u64>> {
    if let Some(metadata) = &options.metadata {
        engine.context.options.limits.check_metadata(metadata)?;
    }
    expiry_of(engine, namespace, options.lifetime)
}

/// The expiry of a put now with this lifetime, which is checked against the limits.
#[inline]
pub(super) fn expiry_of(engine: &Engine, namespace: &NamespaceState, lifetime: Lifetime) -> Result<Option<u64>> {
    let default_ttl_ms = namespace
        .default_ttl_ms()
        .filter(|_| !planted(Planted::IgnoreDefaultTtl));
    if matches!(
        (lifetime, default_ttl_ms),
        (Lifetime::Forever, _) | (Lifetime::Unset, None)
    ) {
        return Ok(None);
    }
    expiry_now(engine, default_ttl_ms, lifetime)
}

/// The expiry of a put now that may have one.
fn expiry_now(engine: &Engine, default_ttl_ms: Option<u64>, lifetime: Lifetime) -> Result<Option<u64>> {
    let limits = &engine.context.options.limits;
    // The clock is read only for a record with an expiry: the store must know whether such a record
    // was written before or after the clock was set back.
    let now_ms = engine.context.time.now().wall_ms();
    match lifetime {
        Lifetime::Forever => Ok(None),
        // It was checked when it was set.
        Lifetime::Unset => Ok(default_ttl_ms.map(|ttl_ms| now_ms.saturating_add(ttl_ms))),
        Lifetime::For(ttl) => limits.expiry_after(ttl, now_ms).map(Some),
        Lifetime::Until(expiry_ms) => limits.check_expiry(expiry_ms, now_ms).map(Some),
        Lifetime::Kept(expiry_ms) => Ok(Some(expiry_ms)),
    }
}

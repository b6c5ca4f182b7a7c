//! Stopping: connections are told, and waited for.

use tokio::sync::watch;

/// Tells connections to end, and waits for them.
pub(super) struct Stop(watch::Sender<bool>);

impl Stop {
    pub(super) fn new() -> Stop {
        Stop(watch::Sender::new(false))
    }

    /// For one connection: held as long as it must be waited for.
    pub(super) fn watcher(&self) -> Watcher {
        Watcher(self.0.subscribe())
    }

    /// Tells all connections; returns once they have ended.
    pub(super) async fn stop(&self) {
        self.0.send_replace(true);
        self.0.closed().await;
    }
}

/// A connection's end of [`Stop`].
pub(super) struct Watcher(watch::Receiver<bool>);

impl Watcher {
    /// Returns once the connection should end.
    pub(super) async fn told(&mut self) {
        // An error means that the sender is gone, and the runtime ends.
        let _ = self.0.wait_for(|is_stopping| *is_stopping).await;
    }
}

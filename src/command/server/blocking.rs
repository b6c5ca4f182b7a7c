//! Threads that may wait.

use super::error::ApiError;

/// Runs what may wait for the disk or for other writers on a thread that may wait. Puts that wait
/// at the same time share one sync of the store.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => {
            tracing::error!(%error, "a request was not done");
            Err(ApiError::new(500, 10001, "internal error"))
        }
    }
}

//! The one task that sleeps until the next deadline.

use std::sync::Arc;

use crate::dispatch::Inner;

/// Ends requests as their deadlines come, for the life of the pool.
///
/// # Cancel safety
/// Safe.
pub(crate) async fn expire_forever(pool: Arc<Inner>) {
    loop {
        let next = pool.expire();
        let due = async {
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = pool.earlier_deadline.notified() => {}
        }
    }
}

//! Waiting for orders to be carried out. An order stands from the moment it is given, whoever still waits.

use std::time::Duration;

use anyserve_core::{Code, Control, Error, Obeyed, Order};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Longest name that an order may be about, in bytes.
pub(crate) const MAX_NAME: usize = 1024;

/// How often it is looked whether the last answers of a draining replica are written. Nobody is told when they are:
/// that would cost every request.
const LOOK: Duration = Duration::from_millis(10);

/// Whether a name may be that of anything; what there is, only the replica knows.
///
/// # Errors
/// `INVALID_INPUT` with its length if it is too long.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    if name.len() <= MAX_NAME {
        return Ok(());
    }
    Err(Error::invalid(format!("the name has {} bytes, the limit is {MAX_NAME}", name.len())))
}

/// Waits until an order is carried out. A replica that leaves keeps nobody waiting, so that no order holds up its end.
///
/// # Errors
/// Those of the order; `DRAINING` if the replica leaves first.
///
/// # Cancel safety
/// Dropping it gives up waiting only.
pub(crate) async fn done(obeyed: Obeyed, leaving: &CancellationToken) -> Result<(), Error> {
    tokio::select! {
        biased;
        ended = obeyed => ended,
        () = leaving.cancelled() => {
            let message = "this replica is leaving and carries out no more orders; what becomes of this one is not known";
            Err(Error::new(Code::Draining, message))
        }
    }
}

/// Gives an order and waits until it is carried out.
///
/// # Errors
/// Those of the order; `DRAINING` if the replica leaves first.
///
/// # Cancel safety
/// Dropping it gives up waiting only.
pub(crate) async fn obey(upstream: &impl Control, order: Order, leaving: &CancellationToken) -> Result<(), Error> {
    done(upstream.order(order), leaving).await
}

/// Waits until the replica has nothing in flight any more: no request, and no answer that is still being written.
///
/// # Errors
/// Those of the order.
///
/// # Cancel safety
/// Dropping it gives up waiting only.
pub(crate) async fn drained(obeyed: Obeyed, metrics: &Metrics) -> Result<(), Error> {
    obeyed.await?;
    while metrics.in_flight() > 0 {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

//! Whether an operator wants this process drained: it gives clients and work to others and stays. A wish; the service
//! follows it.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The wish; clones share it. Off at first.
#[derive(Debug, Clone, Default)]
pub struct DrainSwitch(Arc<watch::Sender<bool>>);

impl DrainSwitch {
    /// Sets the wish; setting it again changes nothing.
    pub fn set(&self, drained: bool) {
        let changed = self.0.send_if_modified(|last| std::mem::replace(last, drained) != drained);
        if changed && drained {
            tracing::warn!("This instance is drained until it is told to stop or to come back.");
        } else if changed {
            tracing::info!("This instance comes back.");
        }
    }

    /// Whether it is to be drained.
    #[must_use]
    pub fn is_on(&self) -> bool {
        *self.0.borrow()
    }

    /// For `/readyz`.
    ///
    /// # Errors
    /// It is to be drained.
    pub fn ready(&self) -> Result<(), String> {
        if self.is_on() {
            Err("drained by an operator; POST /admin/undrain brings it back".to_owned())
        } else {
            Ok(())
        }
    }

    /// Ends when it is this.
    pub async fn becomes(&self, drained: bool) {
        becomes(&mut self.0.subscribe(), drained).await;
    }

    /// Runs `drain` each time it is wished for, given up when it is not any more, and then `undrain`, which is run to
    /// its end; until `stop`, at any point.
    pub async fn follow<D, U>(
        self,
        stop: CancellationToken,
        mut drain: impl FnMut() -> D,
        mut undrain: impl FnMut() -> U,
    ) where
        D: Future<Output = ()>,
        U: Future<Output = ()>,
    {
        let mut wish = self.0.subscribe();
        let turns = async {
            loop {
                becomes(&mut wish, true).await;
                tokio::select! {
                    biased;
                    () = becomes(&mut wish, false) => {}
                    () = async { drain().await; std::future::pending::<()>().await } => {}
                }
                undrain().await;
            }
        };
        // A stop drains by its own plan.
        stop.run_until_cancelled(turns).await;
    }
}

/// Ends when the wish is this one.
async fn becomes(wish: &mut watch::Receiver<bool>, drained: bool) {
    // Its sender is part of whoever waits, so that it never ends.
    drop(wish.wait_for(|now| *now == drained).await);
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_run_once_for_each_wish_given_up_when_unwished_and_ended_by_a_stop() {
        let (switch, stop, done) =
            (DrainSwitch::default(), CancellationToken::new(), RefCell::new(Vec::new()));
        let long = async |what: (&'static str, &'static str)| {
            done.borrow_mut().push(what.0);
            sleep(Duration::from_secs(10)).await;
            done.borrow_mut().push(what.1);
        };
        let follows = switch.clone().follow(
            stop.clone(),
            || long(("drains", "drained")),
            || long(("returns", "returned")),
        );
        let wishes = async {
            for (drained, seconds) in [(true, 15), (true, 1), (false, 20), (true, 5), (false, 15), (true, 5)]
            {
                switch.set(drained);
                assert_eq!((switch.is_on(), switch.ready().is_err()), (drained, drained));
                sleep(Duration::from_secs(seconds)).await;
            }
            stop.cancel();
        };
        tokio::join!(follows, wishes);
        let expected =
            ["drains", "drained", "returns", "returned", "drains", "returns", "returned", "drains"];
        assert_eq!(*done.borrow(), expected, "the second drain is given up, the third is cut by the stop");
    }
}

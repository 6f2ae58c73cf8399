//! What the threads `rewatch` and `witness_rewatch` do: a read blocks a watch whose endpoint stops answering, so they
//! have another one go on elsewhere.

use crate::etcd::Client;
use std::thread::sleep;
use std::time::Duration;

/// How soon after another watch was begun the next is: an etcd that is slow everywhere must not make thread after
/// thread.
const AGAIN: Duration = Duration::from_secs(1);

/// Calls `watch_again` with each endpoint that stops answering. It says whether it began another watch.
pub fn follow_failures(client: &Client, mut watch_again: impl FnMut(usize) -> bool) {
    let failures = client.failures();
    while let Ok(endpoint) = failures.recv() {
        if watch_again(endpoint) {
            sleep(AGAIN);
            while failures.try_recv().is_ok() {}
        }
    }
}

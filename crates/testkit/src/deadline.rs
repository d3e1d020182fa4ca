//! Waiting with a deadline: nothing in a test sleeps, and nothing hangs.

use std::future::Future;
use std::time::Duration;

/// How long anything may take before a test gives up: far more than it needs, so that a busy machine does
/// not fail it.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// The future's value, or a failed test that says what was waited for.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// Asks again and again until the answer is `Some`; a failed test that says what was waited for otherwise.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let mut turns = tokio::time::interval(Duration::from_millis(5));
    within(what, async {
        loop {
            turns.tick().await;
            if let Some(value) = ask().await {
                return value;
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn eventually_asks_until_there_is_an_answer() {
        let mut left = 3;
        let answer = eventually("three turns", async || {
            left -= 1;
            (left == 0).then_some("done")
        })
        .await;
        assert_eq!(answer, "done");
    }
}

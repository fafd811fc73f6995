//! What many followers ask for at the same moment is made once: they all wait for the next block, and a validator has other work
//! than to pack it for each of them.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::sync::Mutex;

/// How many answers are kept: those of followers that are a few blocks apart.
const MAX_KEPT: usize = 8;
/// A larger one is that of a node that catches up, for which few ask at the same moment.
const MAX_KEPT_BYTES: usize = 1 << 20;
/// How far an answer may end below the head. It stays true, but who gets it has to ask again for what came since.
const MAX_BEHIND: u64 = 8;

struct Kept {
    from: u64,
    /// The head when it was made.
    head: u64,
    bytes: Bytes,
}

/// The answers, newest last.
#[derive(Default)]
pub(crate) struct Answers(Mutex<VecDeque<Kept>>);

impl Answers {
    /// Blocks from a height on, as `make` gives them unless that was done a moment ago. `head` is the newest block's height.
    pub async fn from<E>(
        &self,
        from: u64,
        head: u64,
        make: impl AsyncFnOnce() -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<Bytes>, E> {
        // Locked while it is made, so that all who ask meanwhile get the same one.
        let mut kept = self.0.lock().await;
        let usable = |one: &&Kept| one.from == from && one.head + MAX_BEHIND > head;
        if let Some(found) = kept.iter().find(usable) {
            return Ok(Some(found.bytes.clone()));
        }
        let Some(made) = make().await?.map(Bytes::from) else {
            return Ok(None);
        };
        kept.retain(|one| one.from != from);
        if made.len() <= MAX_KEPT_BYTES {
            if kept.len() == MAX_KEPT {
                kept.pop_front();
            }
            kept.push_back(Kept {
                from,
                head,
                bytes: made.clone(),
            });
        }
        Ok(Some(made))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    async fn ask(answers: &Answers, made: &AtomicU32, from: u64, head: u64) -> Option<Bytes> {
        let make = async || {
            made.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok::<_, Infallible>((from <= head).then(|| format!("{from} to {head}").into_bytes()))
        };
        answers.from(from, head, make).await.unwrap()
    }

    #[tokio::test]
    async fn who_asks_at_the_same_moment_gets_the_same_answer() {
        let (answers, made) = (Arc::new(Answers::default()), Arc::new(AtomicU32::new(0)));
        let asked: Vec<_> = (0..100)
            .map(|_| {
                let (answers, made) = (Arc::clone(&answers), Arc::clone(&made));
                tokio::spawn(async move { ask(&answers, &made, 5, 5).await })
            })
            .collect();
        for one in asked {
            assert_eq!(one.await.unwrap().unwrap(), "5 to 5");
        }
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn an_answer_is_made_again_when_much_came_since() {
        let (answers, made) = (Answers::default(), AtomicU32::new(0));
        assert_eq!(ask(&answers, &made, 5, 4).await, None);
        assert_eq!(ask(&answers, &made, 5, 5).await.unwrap(), "5 to 5");
        assert_eq!(ask(&answers, &made, 5, 12).await.unwrap(), "5 to 5");
        assert_eq!(ask(&answers, &made, 5, 13).await.unwrap(), "5 to 13");
        assert_eq!(made.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn few_and_small_ones_are_kept() {
        let (answers, made) = (Answers::default(), AtomicU32::new(0));
        for from in 1..100 {
            ask(&answers, &made, from, 100).await;
        }
        let large = async || Ok::<_, Infallible>(Some(vec![0; MAX_KEPT_BYTES + 1]));
        assert!(answers.from(200, 200, large).await.unwrap().is_some());
        let kept = answers.0.lock().await;
        let from: Vec<u64> = kept.iter().map(|one| one.from).collect();
        assert_eq!(from, (92..100).collect::<Vec<_>>());
    }
}

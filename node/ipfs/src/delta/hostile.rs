//! Peers that answer as no honest one does, over real connections.

use futures::io::AsyncWriteExt as _;
use instar_chunks::MemoryBlocks;
use instar_chunks::block::{RAW, cid_of};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::config::{PeerConfig, peer_id_of};
use crate::peer::{Peer, listen};
use crate::streams::Streams;
use crate::swarm::{self, Driver};

const SHORT: Duration = Duration::from_millis(300);
const MAX_BYTES: u64 = 300_000;

/// A peer that speaks the delta protocol alone, and answers each question by `answer`.
async fn liar<F>(seed: u8, answer: impl Fn(Stream) -> F + Send + 'static) -> Multiaddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let (streams, _opener, mut accepted) = Streams::new(vec![PROTOCOL]);
    let mut swarm = swarm::build(&[seed; 32], streams, None).unwrap();
    let any = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
    let addresses = listen(&mut swarm, &any).await.unwrap();
    let (commands, received) = mpsc::unbounded_channel();
    let (connected, _) = watch::channel(Vec::new());
    tokio::spawn(Driver::new(swarm, received, connected, Box::new(|_| ())).run());
    tokio::spawn(async move {
        // The driver ends when nobody can command it any more.
        let _commands = commands;
        while let Some(incoming) = accepted.recv().await {
            tokio::spawn(answer(incoming.stream));
        }
    });
    addresses[0]
        .clone()
        .with(Protocol::P2p(peer_id_of(&[seed; 32])))
}

async fn head(stream: &mut Stream, kind: Kind, bytes: u64) {
    let question = read_length(&mut *stream, MAX_FRAME_BYTES).await.unwrap();
    read_body(&mut *stream, question.unwrap()).await.unwrap();
    let head = Answer {
        kind: kind as i32,
        bytes,
    };
    write_frame(stream, &head.encode_to_vec()).await.unwrap();
    stream.flush().await.unwrap();
}

async fn ask(liar: Multiaddr) -> (Result<Asked, AskError>, u64) {
    let peer = Peer::start(PeerConfig {
        seed: [99; 32],
        listen: "/ip4/127.0.0.1/tcp/0".parse().unwrap(),
        store: Arc::new(MemoryBlocks::default()),
        dht: None,
    })
    .await
    .unwrap();
    let to = crate::peer_in(&liar).unwrap();
    peer.connect(liar);
    let mut connected = peer.watch_connected();
    connected
        .wait_for(|peers| peers.contains(&to))
        .await
        .unwrap();
    let into = tempfile::tempfile().unwrap();
    let ask = Ask {
        have: cid_of(RAW, b"a"),
        want: cid_of(RAW, b"b"),
        max_bytes: MAX_BYTES,
        make: true,
        patience: SHORT,
    };
    let asked = peer.ask_delta(to, ask, &into).await;
    (asked, into.metadata().unwrap().len())
}

#[tokio::test]
async fn an_answer_without_end_is_taken_as_far_as_it_was_announced() {
    let (told, mut cut_off) = mpsc::unbounded_channel();
    let liar = liar(1, move |mut stream| {
        let told = told.clone();
        async move {
            head(&mut stream, Kind::Here, MAX_BYTES).await;
            // For ever, if it were read.
            while stream.write_all(&[7; 65_536]).await.is_ok() {}
            told.send(()).unwrap();
        }
    });
    let (asked, written) = ask(liar.await).await;
    assert_eq!(asked.unwrap(), Asked::Got(MAX_BYTES));
    assert_eq!(written, MAX_BYTES);
    cut_off.recv().await.unwrap();
}

#[tokio::test]
async fn more_than_was_asked_for_is_refused_before_it_is_read() {
    let liar = liar(2, |mut stream| async move {
        head(&mut stream, Kind::Here, u64::MAX).await;
        while stream.write_all(&[7; 65_536]).await.is_ok() {}
    });
    let (asked, written) = ask(liar.await).await;
    let error = asked.unwrap_err();
    assert!(
        matches!(
            error,
            AskError::TooLong {
                bytes: u64::MAX,
                max: MAX_BYTES
            }
        ),
        "{error}"
    );
    assert_eq!(written, 0);
}

#[tokio::test]
async fn who_goes_silent_or_dawdles_is_left() {
    let silent = liar(3, |mut stream| async move {
        head(&mut stream, Kind::Here, MAX_BYTES).await;
        std::future::pending::<()>().await;
    });
    let (asked, written) = ask(silent.await).await;
    assert!(matches!(asked.unwrap_err(), AskError::Stalled(_)));
    assert_eq!(written, 0);
    // A byte now and then is no progress.
    let dawdler = liar(4, |mut stream| async move {
        head(&mut stream, Kind::Here, MAX_BYTES).await;
        while stream.write_all(&[7]).await.is_ok() && stream.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let (asked, _) = ask(dawdler.await).await;
    assert!(matches!(asked.unwrap_err(), AskError::Stalled(_)));
}

#[tokio::test]
async fn what_breaks_off_and_what_is_no_answer_are_errors() {
    let cut = liar(5, |mut stream| async move {
        head(&mut stream, Kind::Here, MAX_BYTES).await;
        stream.write_all(&[7; 100_000]).await.unwrap();
        stream.close().await.unwrap();
    });
    let (asked, written) = ask(cut.await).await;
    assert!(matches!(asked.unwrap_err(), AskError::Broken(_)));
    assert!(written < 100_001);
    for bytes in [
        &b"\x05\xff\xff\xff\xff\xff"[..],
        &[0xff; 16],
        b"\x02\x08\x09",
        b"",
    ] {
        let noise = liar(6, move |mut stream| async move {
            stream.write_all(bytes).await.unwrap();
            stream.close().await.unwrap();
        });
        let (asked, _) = ask(noise.await).await;
        assert!(
            matches!(asked.unwrap_err(), AskError::Broken(_)),
            "{bytes:?}"
        );
    }
}

//! Values of peers that are further. Malachite's own machine for this scores peers by a clock; this one asks them in
//! turn, once a tick, and hands over what comes in the order of heights.

use std::collections::BTreeMap;

use bytes::Bytes;
use malachite_channel::AppMsg;
use malachite_codec::Codec;
use malachite_consensus::Input;
use malachite_sync::{RawDecidedValue, Request, Response, Status, ValueRequest, ValueResponse};
use malachite_types::ValueResponse as CoreResponse;
use tokio::sync::oneshot;

use super::effects::Message;
use super::{BareConfig, Channel, Output, Session, Surroundings, peer_id};
use crate::app::sync::BATCH;
use crate::context::{Ctx, Height};
use crate::host::Host;
use crate::run::RunError;

/// What is known of peers, and what came of them for later heights.
#[derive(Default)]
pub(super) struct Sync {
    values: BTreeMap<u64, (u64, RawDecidedValue<Ctx>)>,
    turn: usize,
}

impl<H: Host, S: Surroundings> Session<H, S> {
    /// The newest height that is final here.
    fn tip(&self) -> u64 {
        self.hands.app.at.height - 1
    }

    pub(super) fn tell_status(&mut self, peer: u64) {
        let status = Status::<Ctx> {
            peer_id: peer_id(peer),
            tip_height: Height(self.tip()),
            history_min_height: Height(1),
        };
        let bytes = self.hands.wire.encode(&status);
        let bytes = bytes.expect("a status is encoded into memory");
        self.hands
            .surroundings
            .put(Output::Publish(Channel::Status, bytes));
    }

    pub(super) fn ask_further(&mut self, config: &BareConfig) {
        let next = self.hands.app.at.height;
        let further = |peer: &&u64| {
            let tip = self.hands.app.tips.of(&peer_id(**peer).to_bytes());
            tip.is_some_and(|tip| tip >= next)
        };
        let peers: Vec<u64> = config.peers.keys().filter(further).copied().collect();
        if peers.is_empty() || self.sync.values.contains_key(&next) {
            return self.use_values();
        }
        self.sync.turn += 1;
        let peer = peers[self.sync.turn % peers.len()];
        let range = Height(next)..=Height(next + BATCH - 1);
        let request = Request::<Ctx>::ValueRequest(ValueRequest::new(range));
        let bytes = self.hands.wire.encode(&request);
        let bytes = bytes.expect("a request is encoded into memory");
        self.hands
            .surroundings
            .put(Output::Send(peer, Channel::Request, bytes));
    }

    /// A status, a request or a response of a peer.
    pub(super) fn synced(
        &mut self,
        from: u64,
        channel: Channel,
        bytes: Bytes,
    ) -> Result<(), RunError> {
        let wire = self.hands.wire.clone();
        match channel {
            Channel::Status => {
                if Codec::<Status<Ctx>>::decode(&wire, bytes).is_ok() {
                    self.hands.app.look();
                }
            }
            Channel::Request => {
                let Ok(Request::ValueRequest(request)) =
                    Codec::<Request<Ctx>>::decode(&wire, bytes)
                else {
                    return Ok(());
                };
                let (reply, values) = oneshot::channel();
                let start = *request.range.start();
                self.hands.ask(AppMsg::GetDecidedValues {
                    range: request.range,
                    reply,
                });
                self.hands.serve()?;
                let values = { values }.try_recv().unwrap_or_default();
                let response = Response::ValueResponse(ValueResponse::new(start, values));
                let bytes = wire.encode(&response);
                let bytes = bytes.map_err(|e| RunError::Engine(e.to_string()))?;
                self.hands
                    .surroundings
                    .put(Output::Send(from, Channel::Response, bytes));
            }
            _ => {
                if let Ok(Response::ValueResponse(response)) =
                    Codec::<Response<Ctx>>::decode(&wire, bytes)
                {
                    for value in response.values {
                        let height = value.certificate.height.0;
                        self.sync.values.insert(height, (from, value));
                    }
                    self.use_values();
                }
            }
        }
        Ok(())
    }

    /// Hands over the value of the running height, if it came.
    pub(super) fn use_values(&mut self) {
        let height = self.core.height().0;
        self.sync.values = self.sync.values.split_off(&height);
        if self.hands.app.running
            && let Some((from, value)) = self.sync.values.remove(&height)
        {
            let response = CoreResponse::new(peer_id(from), value.value_bytes, value.certificate);
            let input = Input::SyncValueResponse(response);
            self.hands.queue.push_back(Message::Input(input));
        }
    }
}

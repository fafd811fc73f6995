//! Every node computes root and receipts itself and keeps them before it votes; a store that lies is noticed.

use std::collections::BTreeSet;
use std::time::Duration;

use instar::demo::stage::Stage;
use instar::demo::traffic::{INTERVAL, Traffic, account_key};
use instar::demo::{VALIDATORS, wait};
use instar_attest::Purpose;
use instar_ledger::receipt;
use instar_state::tables::{PRESENT, VALUES};
use instar_state::{Computed, StateStore};
use redb::ReadableTable as _;

const PATIENCE: Duration = Duration::from_secs(60);
/// Transfers that stand in blocks before the stores are compared.
const TRANSFERS: u64 = 40;
/// The validator whose store is falsified.
const LIAR: usize = VALIDATORS - 1;

pub fn falsified_balance() {
    super::with_chain(
        |_| {},
        |stage| {
            run_traffic(stage);
            stage.validators.iter_mut().for_each(|v| v.stop());
            let compared = compare(stage);
            assert!(compared > 3, "only {compared} blocks were compared");

            let key = falsify(stage);
            let (program, release) = (stage.program.clone(), stage.first_node.clone());
            for validator in &mut stage.validators {
                validator.start(&program, &release).unwrap();
            }
            for validator in &mut stage.validators {
                validator.wait_ready().unwrap();
            }
            let before = stage.height().unwrap();
            let traffic = Traffic::start(
                stage.chain,
                stage.clients[..LIAR].to_vec(),
                before,
                INTERVAL,
            )
            .unwrap();
            let status = wait::until("the falsified node prevoting nil", PATIENCE, || {
                let status = stage.clients[LIAR].status()?;
                Ok(status
                    .nil_prevotes
                    .contains_key("state-corrupt")
                    .then_some(status))
            })
            .unwrap_or_else(|e| panic!("{e}: {:?}", stage.clients[LIAR].status()));
            let reason = status.last_nil_reason.unwrap();
            assert!(reason.contains(&key), "{reason} does not name {key}");

            // The others go on, and not one certificate has the precommit of the node that could not agree.
            wait::until("transfers becoming final without it", PATIENCE, || {
                Ok((traffic.seen().applied >= TRANSFERS).then_some(()))
            })
            .unwrap();
            let last = stage.height().unwrap();
            let liar = stage.validators[LIAR]
                .home
                .key(Purpose::Consensus)
                .unwrap()
                .public();
            for height in status.height + 1..=last {
                let block = stage.clients[0].block(height).unwrap().unwrap();
                assert!(
                    block
                        .certificate
                        .signatures
                        .iter()
                        .all(|s| s.validator != liar)
                );
            }
            assert!(traffic.finish(PATIENCE).unwrap().rejected.is_empty());
        },
    );
}

pub(super) fn run_traffic(stage: &Stage<'_>) {
    let traffic = Traffic::start(stage.chain, stage.clients.clone(), 0, INTERVAL).unwrap();
    wait::until("some transfers becoming final", PATIENCE, || {
        Ok((traffic.seen().applied >= TRANSFERS).then_some(()))
    })
    .unwrap();
    traffic.finish(PATIENCE).unwrap();
}

/// Compares what the four stores say of each height; returns how many heights there were.
fn compare(stage: &Stage<'_>) -> u64 {
    let stores: Vec<StateStore> = stage
        .validators
        .iter()
        .map(|v| StateStore::open(&v.home.state()).unwrap())
        .collect();
    let ledger = instar_ledger::Store::open(&stage.validators[0].home.ledger()).unwrap();
    let heights = stores
        .iter()
        .map(|s| s.head().unwrap().unwrap().height)
        .min()
        .unwrap();
    for height in 1..=heights {
        let rows: BTreeSet<_> = stores
            .iter()
            .map(|s| s.height_row(height).unwrap().unwrap())
            .collect();
        let [(id, root)] = rows.into_iter().collect::<Vec<_>>()[..] else {
            panic!("four stores say different things of height {height}");
        };
        let block = ledger.read_block(&id).unwrap();
        let computed = Computed {
            height,
            root,
            receipts: receipt::digest(&block.receipts).unwrap(),
        };
        assert_eq!(block.header.state_root, computed.root);
        assert_eq!(block.header.receipts, computed.receipts);
        for (store, validator) in stores.iter().zip(&stage.validators) {
            let own = store.computed(id).unwrap();
            assert_eq!(
                own.as_ref(),
                Some(&computed),
                "{} at {height}",
                validator.name
            );
        }
    }
    heights
}

/// Changes one digit of one balance in one node's store, behind the node's back; the key's name.
fn falsify(stage: &Stage<'_>) -> String {
    let key = format!("d/coin/balance/{}", account_key(0).public().to_hex());
    let path = stage.validators[LIAR].home.state();
    let database = redb::Database::open(&path).unwrap();
    let txn = database.begin_write().unwrap();
    {
        let mut values = txn.open_table(VALUES).unwrap();
        // A row's key begins with the key; of its versions the newest comes first.
        let newest = values
            .iter()
            .unwrap()
            .map(|row| row.unwrap())
            .filter(|(row, _)| row.value().starts_with(key.as_bytes()))
            .map(|(row, value)| (row.value().to_vec(), value.value().to_vec()))
            .next();
        let (row, mut value) = newest.unwrap_or_else(|| panic!("{key} is in no row"));
        assert_eq!(value[0], PRESENT);
        let digit = value.last_mut().unwrap();
        *digit = if *digit == b'7' { b'8' } else { b'7' };
        values.insert(row.as_slice(), value.as_slice()).unwrap();
    }
    txn.commit().unwrap();
    key
}

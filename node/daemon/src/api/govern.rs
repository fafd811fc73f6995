//! Calls that read who is a validator, an operator or a device, and what is moved.

use axum::Json;
use axum::extract::{Path, State};
use instar_attest::Digest;
use instar_chain::query;
use instar_chain::{StateError, StateView};
use serde::Serialize;

use super::Refused;
use crate::node::Shared;

fn answer<T: Serialize>(
    node: &Shared,
    read: impl FnOnce(&dyn StateView) -> Result<T, StateError>,
) -> Result<Json<T>, Refused> {
    Ok(Json(read(&node.view()?).map_err(Refused::internal)?))
}

pub(crate) async fn validators(
    State(node): State<Shared>,
) -> Result<Json<impl Serialize>, Refused> {
    answer(&node, query::validators)
}

pub(crate) async fn operators(State(node): State<Shared>) -> Result<Json<impl Serialize>, Refused> {
    answer(&node, query::operators)
}

pub(crate) async fn devices(State(node): State<Shared>) -> Result<Json<impl Serialize>, Refused> {
    answer(&node, query::devices)
}

pub(crate) async fn forks(State(node): State<Shared>) -> Result<Json<impl Serialize>, Refused> {
    answer(&node, query::forks)
}

pub(crate) async fn motions(State(node): State<Shared>) -> Result<Json<impl Serialize>, Refused> {
    answer(&node, query::motions)
}

pub(crate) async fn motion(
    State(node): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<impl Serialize>, Refused> {
    let id: Digest = id.parse().map_err(Refused::bad)?;
    let found = query::motion(&node.view()?, &id).map_err(Refused::internal)?;
    match found {
        Some(motion) => Ok(Json(motion)),
        None => Err(Refused::not_found(format!("there is no motion {id}"))),
    }
}

//! HTTP: the registry's API, over actix. Handlers translate between requests and [`Registry`] and decide nothing;
//! errors become answers in `error` alone.

mod access;
mod body;
mod conditional;
mod connection;
mod debug;
mod error;
pub(crate) mod gateway;
mod health;
mod listener;
mod observe;
mod range;
pub(crate) mod routing;
mod server;
mod status;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod urls;
pub(crate) mod v2;

use std::sync::Arc;

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::web;
use anyhow::Context;

use crate::config::Pages;
use crate::metrics::Metrics;
use crate::registry::Registry;
use observe::Headers;

pub(crate) use access::Access;
pub(crate) use gateway::Gateway;
pub(crate) use health::Health;
pub(crate) use listener::Listener;
pub(crate) use routing::{Door, Routing};
pub(crate) use server::{Options, serve, serve_debug};
pub(crate) use status::Status;
pub(crate) use tls::Tls;
pub(crate) use urls::Urls;

/// What every handler sees.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) registry: Registry,
    pub(crate) access: Access,
    pub(crate) health: Health,
    pub(crate) status: Status,
    /// What HTTP does of IPFS; `None` where that is off.
    pub(crate) gateway: Option<Gateway>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) urls: Urls,
    pub(crate) pages: Pages,
    /// Each answer gets them.
    pub(crate) headers: Headers,
    /// Each request is a line in the log.
    pub(crate) access_log: bool,
}

/// Adds the registry's routes, below the prefix.
pub(crate) fn routes(config: &mut web::ServiceConfig, state: &web::Data<State>) {
    let prefix = state.urls.prefix();
    config
        .app_data(state.clone())
        .route(&format!("{prefix}/healthz"), web::get().to(health::healthz))
        .route(&format!("{prefix}/readyz"), web::get().to(health::readyz));
    if state.gateway.is_some() {
        gateway::routes(config, prefix);
        routing::routes(config, prefix);
    }
    status::routes(config, prefix);
    token::routes(config, prefix);
    v2::routes(config, prefix);
}

/// The operator's headers, by name.
pub(crate) fn headers(said: &[(String, String)]) -> anyhow::Result<Headers> {
    let mut headers: Headers = Vec::new();
    for (name, value) in said {
        let wrong = || format!("http.headers has {name}, which is no header");
        let (name, value) = (
            HeaderName::try_from(name.as_str()).with_context(wrong)?,
            HeaderValue::try_from(value.as_str()).with_context(wrong)?,
        );
        match headers.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => headers.push((name, vec![value])),
        }
    }
    Ok(headers)
}

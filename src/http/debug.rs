//! The second port, for those who watch the registry: health as Distribution tells it, and metrics.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};

use super::State;
use super::health::{healthz, readyz};
use crate::metrics;

/// `metrics` is the path of the figures, where they are on.
pub(super) fn routes(config: &mut web::ServiceConfig, state: &web::Data<State>, metrics: Option<&str>) {
    config
        .app_data(state.clone())
        .route("/healthz", web::get().to(healthz))
        .route("/readyz", web::get().to(readyz))
        .route("/debug/health", web::get().to(health));
    if let Some(path) = metrics {
        config.route(path, web::get().to(figures));
    }
}

/// What fails, by number; nothing where all is well.
async fn health(state: web::Data<State>) -> HttpResponse {
    let reasons = state.health.reasons();
    let mut answer = if reasons.is_empty() { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    let failing = reasons.into_iter().enumerate();
    answer
        .json(failing.map(|(number, reason)| (format!("check{number}"), reason)).collect::<BTreeMap<_, _>>())
}

async fn figures(state: web::Data<State>) -> HttpResponse {
    let text = tokio::task::spawn_blocking(move || state.metrics.text()).await;
    match text {
        Ok(text) => HttpResponse::Ok().content_type(metrics::CONTENT_TYPE).body(text),
        Err(_) => HttpResponse::ServiceUnavailable().finish(),
    }
}

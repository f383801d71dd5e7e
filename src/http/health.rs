//! Whether the registry lives, and whether it can do its work: `/healthz` and `/readyz`.

use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, web};
use sampan_storage::{Space, Store};
use serde::Serialize;

use super::State;

/// What the registry needs for its work.
#[derive(Debug)]
pub(crate) struct Health {
    store: Store,
    /// Pushes are refused anyway, so that room does not matter.
    read_only: bool,
    stopping: AtomicBool,
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    reasons: Vec<String>,
}

impl Health {
    pub(crate) fn new(store: Store, read_only: bool) -> Self {
        Self { store, read_only, stopping: AtomicBool::new(false) }
    }

    /// From now on the registry is not ready.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Why the registry is not ready; nothing where it is.
    pub(super) fn reasons(&self) -> Vec<String> {
        let stopping = self.stopping.load(Ordering::SeqCst);
        let damaged = self.store.is_damaged();
        let space = match self.store.space() {
            Ok(Space { free, reserve }) if free < reserve && !self.read_only => {
                Some(format!("the disk is full: {free} bytes are free, and {reserve} are kept free"))
            }
            Ok(_) => None,
            Err(error) => Some(format!("the data directory cannot be asked for its free space: {error}")),
        };
        let reasons = [
            stopping.then(|| "the registry is stopping".to_owned()),
            damaged.then(|| "the index has failed and is being built anew".to_owned()),
            space,
        ];
        reasons.into_iter().flatten().collect()
    }
}

/// The process lives and answers.
pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok\n")
}

pub(super) async fn readyz(state: web::Data<State>) -> HttpResponse {
    let reasons = state.health.reasons();
    let ready = reasons.is_empty();
    let mut answer = if ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer.insert_header((CACHE_CONTROL, "no-store")).json(Readiness { ready, reasons })
}

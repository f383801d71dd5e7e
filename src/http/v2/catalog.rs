//! `GET /v2/_catalog`: not in the OCI specification; Docker's own, and every tool knows it.

use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use super::super::State;
use super::super::error::{HttpError, QueryError};
use super::paging;
use super::query::Query;
use crate::auth::Caller;

#[derive(Serialize)]
struct Catalog<'a> {
    repositories: &'a [String],
}

/// Of the repositories that the caller may pull.
pub(super) async fn get(
    request: &HttpRequest,
    state: &State,
    caller: Caller,
) -> Result<HttpResponse, HttpError> {
    let query = Query::of(request)?;
    let limit = paging::limit(&query, state.pages.catalog)?;
    let State { registry, access, .. } = state;
    let reveal = |last| access.auth.reveal(last).ok_or(QueryError::OldLink);
    let last = query.get("last").map(reveal).transpose()?;
    // A token for the list need not cover what is in it.
    let sight = access.sight(&caller.unlimited());
    let page = registry.repositories(last, limit, sight).await?;
    let mut response = HttpResponse::Ok();
    if let Some(next) = page.next {
        let seen = page.items.last() == Some(&next);
        let last = if seen { next } else { access.auth.hide(&next) };
        let path = state.urls.base(request).catalog();
        response.insert_header(paging::next(&path, &[("n", &limit.to_string()), ("last", &last)]));
    }
    Ok(response.json(Catalog { repositories: &page.items }))
}

//! `GET /v2/_catalog`: not in the OCI specification; Docker's own, and every tool knows it.

use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use super::super::State;
use super::super::error::HttpError;
use super::paging;
use super::query::Query;

#[derive(Serialize)]
struct Catalog<'a> {
    repositories: &'a [String],
}

pub(super) async fn get(request: &HttpRequest, state: &State) -> Result<HttpResponse, HttpError> {
    let query = Query::of(request)?;
    let limit = paging::limit(&query, state.pages.catalog)?;
    let page = state.registry.repositories(query.get("last").map(str::to_owned), limit).await?;
    let mut response = HttpResponse::Ok();
    if let (true, Some(last)) = (page.more, page.items.last()) {
        let path = state.urls.base(request).catalog();
        response.insert_header(paging::next(&path, &[("n", &limit.to_string()), ("last", last)]));
    }
    Ok(response.json(Catalog { repositories: &page.items }))
}

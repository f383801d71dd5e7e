//! `GET /v2/<name>/tags/list`

use actix_web::{HttpRequest, HttpResponse};
use sampan_storage::RepositoryName;
use serde::Serialize;

use super::super::State;
use super::super::error::HttpError;
use super::paging;
use super::query::Query;

#[derive(Serialize)]
struct TagList<'a> {
    name: &'a str,
    tags: &'a [String],
}

pub(super) async fn get(
    request: &HttpRequest,
    state: &State,
    repository: &RepositoryName,
) -> Result<HttpResponse, HttpError> {
    let query = Query::of(request)?;
    let limit = paging::limit(&query, state.pages.tags)?;
    let page = state.registry.tags(repository, query.get("last").map(str::to_owned), limit).await?;
    let mut response = HttpResponse::Ok();
    if let (true, Some(last)) = (page.more, page.items.last()) {
        let path = state.urls.base(request).tags(repository);
        response.insert_header(paging::next(&path, &[("n", &limit.to_string()), ("last", last)]));
    }
    Ok(response.json(TagList { name: repository.as_str(), tags: &page.items }))
}

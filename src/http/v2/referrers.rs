//! `GET /v2/<name>/referrers/<digest>`: an image index of what refers to a manifest, never a 404.

use actix_web::http::header::HeaderName;
use actix_web::{HttpRequest, HttpResponse};
use sampan_storage::{Digest, RepositoryName};
use serde::Serialize;

use super::super::State;
use super::super::error::HttpError;
use super::query::Query;
use super::{paging, warning};
use crate::registry::{Descriptor, MAX_PAGE, OCI_INDEX, ReferrersQuery};

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u8,
    media_type: &'static str,
    manifests: &'a [Descriptor],
}

pub(super) async fn get(
    request: &HttpRequest,
    state: &State,
    repository: &RepositoryName,
    subject: &Digest,
) -> Result<HttpResponse, HttpError> {
    let query = Query::of(request)?;
    let artifact_type = query.get("artifactType").filter(|it| !it.is_empty());
    let limit = query.get("n").map(|_| paging::limit(&query, MAX_PAGE)).transpose()?;
    let ask = ReferrersQuery {
        artifact_type: artifact_type.map(str::to_owned),
        after: query.digest("last")?,
        limit,
    };
    let page = state.registry.referrers(repository, subject, ask).await?;

    let mut response = HttpResponse::Ok();
    if let Some(last) = page.next {
        let (last, limit) = (last.to_string(), limit.map(|limit| limit.to_string()));
        let mut parameters = vec![("last", last.as_str())];
        parameters.extend(limit.as_deref().map(|limit| ("n", limit)));
        parameters.extend(artifact_type.map(|it| ("artifactType", it)));
        let path = state.urls.base(request).referrers(repository, subject);
        response.insert_header(paging::next(&path, &parameters));
    }
    if artifact_type.is_some() {
        response.insert_header((FILTERS_APPLIED, "artifactType"));
    }
    if page.unread > 0 {
        let text =
            format!("{} referrers are left out, because no peer gives their manifests now", page.unread);
        response.insert_header(warning(&text));
    }
    let index = Index { schema_version: 2, media_type: OCI_INDEX, manifests: &page.descriptors };
    // Clients compare the content type as a whole.
    Ok(response.content_type(OCI_INDEX).json(index))
}

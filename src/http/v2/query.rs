//! Query strings: pairs in their order, decoded; what is not known is ignored (`ns` among it).

use actix_web::{HttpRequest, web};
use sampan_storage::Digest;

use super::super::error::QueryError;

pub(in super::super) struct Query(Vec<(String, String)>);

impl Query {
    pub(in super::super) fn of(request: &HttpRequest) -> Result<Self, QueryError> {
        Self::read(request.query_string())
    }

    pub(in super::super) fn read(text: &str) -> Result<Self, QueryError> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let pairs = web::Query::<Vec<(String, String)>>::from_query(text).map_err(|_| QueryError::Form)?;
        Ok(Self(pairs.into_inner()))
    }

    /// The first value of a name.
    pub(in super::super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(in super::super) fn all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn digest(&self, name: &'static str) -> Result<Option<Digest>, QueryError> {
        let parse = |text: &str| text.parse().map_err(|error| QueryError::Digest { name, error });
        self.get(name).map(parse).transpose()
    }
}

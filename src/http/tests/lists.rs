//! Tags and repositories, a page at a time.

use super::*;

async fn names(server: &Server, path: &str, field: &str) -> (Vec<String>, String) {
    let answer = server.get(path).await;
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    let link = header(&answer, "link").to_owned();
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    (serde_json::from_value(body[field].clone()).unwrap(), link)
}

#[actix_web::test]
async fn tags_come_in_byte_order_and_in_pages() {
    let server = Server::start();
    for tag in ["b", "a", "B", "1.10", "1.9"] {
        server.push_image("a", tag, b"layer").await;
    }
    let list = async |query: &str| names(&server, &format!("/v2/a/tags/list{query}"), "tags").await;
    assert_eq!(list("").await, (["1.10", "1.9", "B", "a", "b"].map(String::from).to_vec(), String::new()));
    let (tags, link) = list("?n=2").await;
    assert_eq!(tags, ["1.10", "1.9"]);
    assert_eq!(link, "</v2/a/tags/list?n=2&last=1%2E9>; rel=\"next\"");
    assert_eq!(list("?n=2&last=1%2E9").await.0, ["B", "a"]);
    assert_eq!(list("?n=2&last=a").await, (vec!["b".to_owned()], String::new()));
    // `last` is compared by value and need not exist.
    assert_eq!(list("?last=aa").await.0, ["b"]);
    assert_eq!(list("?n=0").await, (vec![], String::new()));
    assert_eq!(list("?n=5").await.1, "");
    assert_eq!(list("?n=18446744073709551616").await.0.len(), 5);
}

#[actix_web::test]
async fn a_page_size_that_is_none_and_a_repository_that_is_not_there() {
    let server = Server::start();
    server.push_blob("a", b"x").await;
    assert_eq!(names(&server, "/v2/a/tags/list", "tags").await.0, Vec::<String>::new());
    let answer = server.get("/v2/a/tags/list?n=-1").await;
    assert_eq!(problem(answer).await, code(400, "PAGINATION_NUMBER_INVALID"));
    assert_eq!(problem(server.get("/v2/b/tags/list?n=0").await).await, code(404, "NAME_UNKNOWN"));
}

#[actix_web::test]
async fn the_catalog_has_repositories_with_manifests() {
    let server = Server::start();
    for repository in ["b", "a/c", "a"] {
        server.push_image(repository, "v1", b"layer").await;
    }
    server.push_blob("only-blobs", b"x").await;
    assert_eq!(names(&server, "/v2/_catalog", "repositories").await.0, ["a", "a/c", "b"]);
    let (page, link) = names(&server, "/v2/_catalog?n=1&last=a", "repositories").await;
    assert_eq!(page, ["a/c"]);
    assert_eq!(link, "</v2/_catalog?n=1&last=a%2Fc>; rel=\"next\"");
    let digest = sha256(image(b"layer").to_string().as_bytes());
    server.send("DELETE", &format!("/v2/b/manifests/{digest}")).await;
    assert_eq!(names(&server, "/v2/_catalog", "repositories").await.0, ["a", "a/c"]);
}

//! Pushing, pulling and deleting manifests and tags.

use super::*;

#[actix_web::test]
async fn a_manifest_comes_back_to_the_byte() {
    let server = Server::start();
    server.image("a/b", b"layer").await;
    // Spaces and the order of fields are the pusher's.
    let body = format!(" {}\n", serde_json::to_string_pretty(&image(b"layer")).unwrap());
    let digest = sha256(body.as_bytes());
    let put = server.request("PUT", "/v2/a/b/manifests/v1").header("content-type", IMAGE).body(body.clone());
    let answer = put.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(header(&answer, "location"), format!("/v2/a/b/manifests/{digest}"));
    assert_eq!(header(&answer, "docker-content-digest"), digest.to_string());
    for reference in ["v1".to_owned(), digest.to_string()] {
        let answer = server.get(&format!("/v2/a/b/manifests/{reference}")).await;
        assert_eq!(header(&answer, "content-type"), IMAGE);
        assert_eq!(header(&answer, "docker-content-digest"), digest.to_string());
        assert_eq!(answer.bytes().await.unwrap(), body);
    }
}

#[actix_web::test]
async fn a_moved_tag_is_seen_at_once() {
    let server = Server::start();
    for round in 0..20 {
        let digest = server.push_image("a", "latest", format!("layer {round}").as_bytes()).await;
        let answer = server.get("/v2/a/manifests/latest").await;
        assert_eq!(header(&answer, "docker-content-digest"), digest.to_string());
    }
}

#[actix_web::test]
async fn types_are_kept_where_the_body_does_not_say_them() {
    let server = Server::start();
    let mut image = server.image("a", b"layer").await;
    image.as_object_mut().unwrap().remove("mediaType");
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    for (tag, sent, seen) in [("docker", docker, docker), ("plain", "application/json", IMAGE)] {
        // Another body for each, because the type belongs to the manifest.
        image["annotations"] = json!({ "tag": tag });
        let answer = server.put_manifest("a", tag, sent, &image).await;
        assert_eq!(answer.status(), StatusCode::CREATED, "{sent}");
        let answer = server.get(&format!("/v2/a/manifests/{tag}")).await;
        assert_eq!(header(&answer, "content-type"), seen);
    }
}

#[actix_web::test]
async fn what_is_no_manifest_is_refused() {
    let server = Server::start();
    let good = server.image("a", b"layer").await;
    let mut both = good.clone();
    both["manifests"] = json!([]);
    for (media_type, body) in [
        (IMAGE, json!({})),
        (IMAGE, json!([1])),
        (IMAGE, both),
        (INDEX, good.clone()),
        (IMAGE, json!({ "schemaVersion": 1, "fsLayers": [] })),
    ] {
        let answer = server.put_manifest("a", "v1", media_type, &body).await;
        assert_eq!(problem(answer).await, code(400, "MANIFEST_INVALID"), "{body}");
    }
    let answer = server.put_manifest("a", ".bad", IMAGE, &good).await;
    assert_eq!(problem(answer).await, code(400, "MANIFEST_INVALID"));
    let answer = server.put_manifest("a", &sha256(b"other").to_string(), IMAGE, &good).await;
    assert_eq!(problem(answer).await, code(400, "DIGEST_INVALID"));
    assert_eq!(problem(server.get("/v2/a/manifests/.bad").await).await, code(404, "MANIFEST_UNKNOWN"));
    assert_eq!(problem(server.get("/v2/a/manifests/v1").await).await, code(404, "MANIFEST_UNKNOWN"));
}

#[actix_web::test]
async fn a_manifest_that_is_too_large_is_refused_with_or_without_a_length() {
    let server = Server::start();
    let body = vec![b' '; 4 * 1024 * 1024 + 1];
    let put = || server.request("PUT", "/v2/a/manifests/v1").header("content-type", IMAGE);
    let pieces: Vec<_> = body.chunks(1 << 20).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let streamed = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    assert_eq!(problem(put().body(streamed).send().await.unwrap()).await, code(413, "SIZE_INVALID"));
    let head = format!(
        "PUT /v2/a/manifests/v1 HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    assert!(wire::exchange(&server, head.as_bytes()).await.starts_with("HTTP/1.1 413 "));
}

#[actix_web::test]
async fn what_a_manifest_names_must_be_there() {
    let server = Server::start();
    let answer = server.put_manifest("a", "v1", IMAGE, &image(b"layer")).await;
    assert_eq!(problem(answer).await, code(404, "MANIFEST_BLOB_UNKNOWN"));
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor(IMAGE, b"none")] });
    let answer = server.put_manifest("a", "v1", INDEX, &index).await;
    assert_eq!(problem(answer).await, code(404, "MANIFEST_BLOB_UNKNOWN"));
    // A refused push leaves no repository behind.
    assert_eq!(problem(server.get("/v2/a/tags/list").await).await, code(404, "NAME_UNKNOWN"));

    let sparse = Server::with(Policy { sparse: true, ..Policy::default() }, local());
    assert_eq!(sparse.put_manifest("a", "v1", INDEX, &index).await.status(), StatusCode::CREATED);
}

#[actix_web::test]
async fn foreign_layers_may_be_absent() {
    let server = Server::start();
    server.push_blob("a", b"{}").await;
    let mut body = image(b"elsewhere");
    body["layers"][0]["urls"] = json!(["https://example.org/layer"]);
    assert_eq!(server.put_manifest("a", "v1", IMAGE, &body).await.status(), StatusCode::CREATED);
}

#[actix_web::test]
async fn children_of_an_index_may_be_blobs() {
    let server = Server::start();
    server.push_blob("cache", b"layer").await;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", b"layer")],
    });
    assert_eq!(server.put_manifest("cache", "v1", INDEX, &index).await.status(), StatusCode::CREATED);
}

#[actix_web::test]
async fn content_of_another_repository_is_linked_with_all_it_names() {
    let server = Server::start();
    let child = server.push_image("a", "v1", b"layer").await;
    let body = image(b"layer").to_string();
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor(IMAGE, body.as_bytes())] });
    assert_eq!(server.put_manifest("b", "v1", INDEX, &index).await.status(), StatusCode::CREATED);
    assert_eq!(server.get(&format!("/v2/b/manifests/{child}")).await.bytes().await.unwrap(), body);
    for content in [b"layer".as_slice(), b"{}"] {
        let answer = server.get(&format!("/v2/b/blobs/{}", sha256(content))).await;
        assert_eq!(answer.bytes().await.unwrap(), content);
    }
}

#[actix_web::test]
async fn many_tags_come_with_one_push() {
    let server = Server::start();
    let image = server.image("a", b"layer").await;
    let digest = sha256(image.to_string().as_bytes());
    let tags: Vec<String> = (0..12).map(|at| format!("tag=t{at}")).collect();
    let answer = server.put_manifest("a", &format!("{digest}?{}", tags.join("&")), IMAGE, &image).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(answer.headers().get_all("oci-tag").iter().count(), 12);
    let answer = server.get("/v2/a/manifests/t11").await;
    assert_eq!(header(&answer, "docker-content-digest"), digest.to_string());

    let many: Vec<String> = (0..200).map(|at| format!("tag=t{at}")).collect();
    let answer = server.put_manifest("a", &format!("{digest}?{}", many.join("&")), IMAGE, &image).await;
    assert_eq!(problem(answer).await.0, 414);
    let answer = server.put_manifest("a", &format!("{digest}?tag=-bad"), IMAGE, &image).await;
    assert_eq!(problem(answer).await, code(400, "MANIFEST_INVALID"));
}

#[actix_web::test]
async fn deleting_takes_the_tag_or_the_manifest_with_its_tags() {
    let server = Server::start();
    let digest = server.push_image("a", "one", b"layer").await;
    server.push_image("a", "two", b"layer").await;
    server.push_image("a", "three", b"layer").await;
    let get = async |reference: &str| server.get(&format!("/v2/a/manifests/{reference}")).await.status();
    assert_eq!(server.send("DELETE", "/v2/a/manifests/one").await.status(), StatusCode::ACCEPTED);
    assert_eq!(get("one").await, StatusCode::NOT_FOUND);
    assert_eq!(get("two").await, StatusCode::OK);
    let by_digest = format!("/v2/a/manifests/{digest}");
    assert_eq!(server.send("DELETE", &by_digest).await.status(), StatusCode::ACCEPTED);
    for reference in ["two", "three", &digest.to_string()] {
        assert_eq!(get(reference).await, StatusCode::NOT_FOUND, "{reference}");
    }
    assert_eq!(problem(server.send("DELETE", &by_digest).await).await, code(404, "MANIFEST_UNKNOWN"));
}

#[actix_web::test]
async fn no_way_of_deleting_passes_the_switch() {
    let server = Server::with(Policy { delete: false, ..Policy::default() }, local());
    let digest = server.push_image("a", "v1", b"layer").await;
    for path in [format!("manifests/{digest}"), "manifests/v1".into(), format!("blobs/{}", sha256(b"layer"))]
    {
        let answer = server.send("DELETE", &format!("/v2/a/{path}")).await;
        assert_eq!(problem(answer).await, code(405, "UNSUPPORTED"), "{path}");
    }
    assert_eq!(server.get("/v2/a/manifests/v1").await.status(), StatusCode::OK);
}
